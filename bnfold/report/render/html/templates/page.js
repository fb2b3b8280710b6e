"use strict";
for (const area of document.querySelectorAll("[data-filtered]")) {
  const form = area.querySelector("form");
  const shown = form.querySelector("output");
  const table = area.querySelector("table");
  const always = table.classList.contains("many");
  let pause;
  const rows = Array.from(area.querySelectorAll("tbody tr"), (row) => ({ row, text: null }));
  const apply = () => {
    const values = Object.fromEntries(new FormData(form));
    const words = values.text.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    // While somebody types, only the rows in sight are laid out.
    table.classList.add("many");
    clearTimeout(pause);
    pause = setTimeout(() => table.classList.toggle("many", always), 600);
    for (const each of rows) {
      const { row } = each;
      if (words.length) each.text ??= row.textContent.toLowerCase();
      const fits =
        (!values.verdict || row.dataset.verdict === values.verdict) &&
        (!values.reason || row.dataset.reason === values.reason) &&
        words.every((word) => each.text.includes(word));
      row.hidden = !fits;
      count += fits;
    }
    shown.textContent = count + " of " + rows.length + " shown";
  };
  form.reset(); // a browser that comes back to the page has kept what was chosen
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  shown.textContent = rows.length + " of " + rows.length + " shown";
}
for (const link of document.querySelectorAll("a[data-reason]")) {
  link.addEventListener("click", () => {
    const form = document.querySelector(link.hash + " form");
    form.reset();
    form.elements.reason.value = link.dataset.reason;
    form.dispatchEvent(new Event("input"));
  });
}
for (const button of navigator.clipboard ? document.querySelectorAll(".copy") : []) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy it by hand";
    }
  });
}
