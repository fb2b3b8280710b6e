"""Reports as dictionaries: what the forms are tested on."""

from __future__ import annotations

import math
from typing import Any

HOSTILE = [
    "</script><img src=x onerror=window.hacked=1>",
    '"><script>window.hacked=1</script>',
    "a|b",
    "``` `x` ```",
    "![x](http://evil.example/x.png)",
    "<!-- -->--><b>",
    "]]></system-out>",
    "back\\slash\\|",
    "__init__",
    "</code><script>1</script>",
    "line\nbreak\r\n# heading",
    "\x00\x1b[31m\x7f\u202e\ud800\ufffe",
    "*a* _b_ ~~c~~ [d](e) &lt; {{ 7*7 }} ${x}",
]
"""Names that mean something to somebody."""

HEAD = {"schema_version": 1, "bnfold": "0.1.0"}
RUN = {
    "verb": "optimize",
    "command": "bnfold optimize 'a b.onnx' --report r.html",
    "exit_code": 0,
    "date": "2026-01-02T03:04:05+00:00",
    "environment": {"python": "3.11.7", "bnfold": "0.1.0"},
    "require_folded": False,
}
ERROR = {"kind": "ModelError", "message": "a.onnx: not ONNX", "hint": "try another", "exit_code": 2}


def site(name: str, **parts: Any) -> dict[str, Any]:
    """A site that was kept, unless ``parts`` say otherwise."""
    kept = {
        "name": name,
        "kind": "BatchNormalization",
        "graph": "main",
        "channels": 3,
        "verdict": "kept",
        "direction": None,
        "into": [],
        "through": [],
        "reason": "fan_out",
        "detail": f'"{name}" is also used elsewhere',
    }
    return {**kept, **parts}


def folded(name: str, *into: str, through: tuple[str, ...] = ()) -> dict[str, Any]:
    gone = {"verdict": "folded", "direction": "backward", "reason": None, "detail": None}
    return site(name, into=list(into), through=list(through), **gone)


def model(*sites: dict[str, Any], **parts: Any) -> dict[str, Any]:
    gone = sum(each["verdict"] == "folded" for each in sites)
    return {
        **HEAD,
        "model": "a.onnx",
        "output": "b.onnx",
        "summary": {
            "sites": len(sites),
            "folded": gone,
            "kept": len(sites) - gone,
            "merged": 0,
            "nodes_before": 9,
            "nodes_after": 7,
            "bytes_before": 2000,
            "bytes_after": 1000,
        },
        "operators": {"before": {"Conv": 2, "Relu": 1}, "after": {"Conv": 1, "Relu": 1}},
        "sites": list(sites),
        "checks": [],
        "hints": [],
        **parts,
    }


def output(name: str = "y", **parts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "equivalent": True,
        "difference": 3e-7,
        "noise": 2e-7,
        "ratio": 1.5,
        "max_abs": 1e-6,
        "allowed": 1.6e-6,
        "worst_index": [0, 3],
        "detail": None,
        "unstable": False,
        "argmax_agreement": None,
        "oracle": None,
        **parts,
    }


def check(*outputs: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {
        "provider": "CPUExecutionProvider",
        "level": "default",
        "equivalent": all(each["equivalent"] for each in outputs),
        "feeds": 3,
        "outputs": list(outputs),
        "warnings": [],
        "detail": None,
        "nodes": {"CPUExecutionProvider": 9},
        "tf32": None,
        "failing_feed": None,
        "localization": None,
        "expected": [],
        **parts,
    }


def layer(position: int, *, beyond: bool) -> dict[str, Any]:
    noise = 1e-7 * (1 + math.sin(position) / 4)
    ratio = 40.0 if beyond else 1.5
    return {
        "tensor": f"/layer{position}/out",
        "reference_node": f"/bn{position}",
        "reference_operator": "BatchNormalization",
        "candidate_node": f"/conv{position}",
        "candidate_operator": "Conv",
        "difference": ratio * noise,
        "noise": noise,
        "ratio": ratio,
        "allowed": 8 * noise,
        "beyond": beyond,
        "detail": None,
    }


def localization(count: int, first: int) -> dict[str, Any]:
    layers = [layer(position, beyond=position >= first) for position in range(count)]
    return {"first": layers[first], "layers": layers, "detail": None}


def statistics(name: str, **parts: Any) -> dict[str, Any]:
    spread = {"low": -1.0, "high": 2.0, "counts": [1, 0, 5, 2], "log10": False, "others": 0}
    return {
        "name": name,
        "graph": "main",
        "nodes": [name],
        "channels": 8,
        "mean": [-1.0, 1.0],
        "variance": [0.1, 2.0],
        "gamma": [0.5, 1.5],
        "largest_gain": 3.0,
        "dead_scale": [],
        "dead_variance": [],
        "noisy": [],
        "not_finite": [],
        "never_updated": False,
        "histograms": {"scale": spread, "variance": {**spread, "log10": True, "others": 1}},
        **parts,
    }


def rich(count: int = 40) -> dict[str, Any]:
    """A run in which everything happens that a report can show of one model."""
    sites = [
        site(f"/stage{i // 8}/bn{i}", reason="padding_shift" if i % 10 else "fan_out")
        if i % 5 == 0
        else folded(f"/stage{i // 8}/bn{i}", f"/stage{i // 8}/conv{i}", through=("/relu",))
        for i in range(count)
    ]
    wrong = output("logits", equivalent=False, difference=5e-6, ratio=25.0, argmax_agreement=0.98)
    shaky = output("mask", unstable=True, detail="unstable: noise alone flips elements")
    unequal = check(
        wrong, shaky, localization=localization(60, 30), failing_feed="b.failing.npz",
        provider="CUDAExecutionProvider",
    )  # fmt: skip
    norms = [statistics(each["name"]) for each in sites]
    norms[3]["dead_scale"] = [1, 2]
    error = {
        "kind": "NotEquivalentError",
        "message": "a b.onnx: does not compute the same; nothing was written",
        "hint": "report it",
        "exit_code": 3,
    }
    return {
        **model(*sites),
        "run": {**RUN, "exit_code": 3},
        "model": "a b.onnx",
        "output": None,
        "checks": [check(output("logits"), output("mask"), level="disable_all"), unequal],
        "hints": ["use --freeze-initializers"],
        "statistics": norms,
        "error": error,
    }


def several() -> dict[str, Any]:
    models = [
        model(folded("bn", "conv"), model="fine.onnx", checks=[check(output())]),
        model(site("bn"), model="kept.onnx"),
        {**HEAD, "model": "broken.onnx", "output": None, "error": ERROR, "checks": []},
        model(model="empty.onnx", operators=None),
    ]
    return {**HEAD, "run": {**RUN, "exit_code": 2}, "models": models}


def comparison() -> dict[str, Any]:
    oracle = {"reference": 1e-7, "candidate": 9e-8, "nearer": "equal", "exact": 0.0, "detail": None}
    expected = {
        "output": "y",
        "feeds": 2,
        "reference_agrees": True,
        "candidate_agrees": False,
        "reference": 1e-7,
        "candidate": None,
    }
    odd = output("z", equivalent=False, difference=None, noise=0.0, ratio=None, max_abs=None)
    return {
        **HEAD,
        "run": {**RUN, "verb": "check", "exit_code": 1},
        "reference": "a.onnx",
        "candidate": "b.onnx",
        "equivalent": False,
        "replay": "bnfold check a.onnx b.onnx --data x.npz",
        "operators": None,
        "checks": [
            check(output(oracle=oracle, difference=0.0, ratio=0.0), odd, expected=[expected]),
            check(level="disable_all", equivalent=False, detail="the inputs differ"),
            check(output(), tf32=[output()], provider="CUDAExecutionProvider"),
        ],
    }


def drift(name: str, **parts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "nodes": [name],
        "channels": 8,
        "values": 640,
        "mean_shift": 0.2,
        "mean_shift_rms": 0.1,
        "log_variance_ratio": -0.3,
        "log_variance_ratio_rms": 0.2,
        "kl": 0.05,
        "kl_max": 0.4,
        "worst_channel": 3,
        "dead_scale": [],
        "dead_variance": [],
        "noisy": [],
        "kept_channels": [],
        **parts,
    }


def recalibration() -> dict[str, Any]:
    kept = {"name": "c", "graph": "main", "channels": 3, "reason": "excluded", "detail": "asked"}
    return {
        **HEAD,
        "run": {**RUN, "verb": "recalibrate"},
        "model": "a.onnx",
        "output": "b.onnx",
        "summary": {"norms": 3, "renewed": 2, "kept": 1, "samples": 640, "batches": 10},
        "mode": "precise",
        "variance": "unbiased",
        "pooling": "samples",
        "momentum": 1.0,
        "provider": "CPUExecutionProvider",
        "norms": [drift("a", kl=None, kl_max=None, dead_variance=[0]), drift("b", noisy=[4])],
        "kept": [kept],
        "warnings": ["few samples"],
    }


def speed(name: str, **parts: Any) -> dict[str, Any]:
    return {
        "model": name,
        "provider": "CPUExecutionProvider",
        "level": "default",
        "threads": 2,
        "batch": 8,
        "shapes": {"images": [8, 1, 8, 8]},
        "latency_ms": {"median": 1.5, "p5": 1.2, "p95": 2.0, "runs": 100},
        "throughput": 5333.3,
        "ratio": None,
        "interval": None,
        "verdict": None,
        **parts,
    }


def benchmark() -> dict[str, Any]:
    slower = speed("b.onnx", ratio=1.2, interval=[1.1, 1.3], verdict="slower")
    footprint = {"model": "a.onnx", "provider": "CPUExecutionProvider", "load_ms": 12.0}
    return {
        **HEAD,
        "run": {**RUN, "verb": "bench"},
        "models": ["a.onnx", "b.onnx"],
        "environment": {"python": "3.11.7"},
        "speeds": [speed("a.onnx"), slower],
        "footprints": [{**footprint, "memory_bytes": 10_000_000}],
    }


SAMPLES = {
    "rich": rich(),
    "several": several(),
    "comparison": comparison(),
    "recalibration": recalibration(),
    "benchmark": benchmark(),
    "failed": {**HEAD, "run": RUN, "model": "a.onnx", "output": None, "error": ERROR, "checks": []},
    "without a run": model(folded("bn", "conv")),
    "without sites": {**model(), "run": RUN},
}
