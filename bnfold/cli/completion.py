"""``bnfold completion``: the script that makes a shell complete the commands.

What click offers is kept; the scripts differ from its own in one thing. Paths that a type completes
itself, models for example, are quoted by the shell, and a folder leads on to what is in it.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from bnfold.cli.program import COMPLETION_VARIABLE

__all__ = ["completion"]

# The scripts are formatted with %; the type of a path is `bnfold.cli.types.PATH_COMPLETION`.
_BASH = """\
%(complete_func)s() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
            path,*) compopt -o filenames; COMPREPLY+=("${line#*,}") ;;
            plain,*) COMPREPLY+=("${line#*,}") ;;
        esac
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a response names described files folders
    local kind value help
    local -a anywhere=(-U)
    (( $+commands[%(prog_name)s] )) || return 1
    response=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
%(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)}")
    compset -P 1 '--*=' && anywhere=()
    for kind value help in "${response[@]}"; do
        case $kind in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            path) if [[ $value == */ ]]; then folders+=("$value"); else files+=("$value"); fi ;;
            plain)
                if [[ $help == "_" ]]; then names+=("$value"); else described+=("$value:$help"); fi
                ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U
    (( $#names )) && compadd $anywhere -V unsorted -a names
    (( $#folders )) && compadd $anywhere -f -S '' -a folders
    (( $#files )) && compadd $anywhere -f -a files
    return 0
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    set -l start (string match --regex -- '^--[^=]+=' (commandline -t))
    for line in (COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) \
%(complete_var)s=fish_complete %(prog_name)s 2>/dev/null)
        set -l item (string split -m 1 , -- $line)
        switch $item[1]
            case dir
                string replace --regex -- '^' "$start" (__fish_complete_directories $item[2])
            case file
                string replace --regex -- '^' "$start" (__fish_complete_path $item[2])
            case path plain
                echo "$start$item[2]"
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


@add_completion_class
class _Bash(BashComplete):
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the incomplete one, and that one, from the line itself."""
        # Bash's own words are split at colons too. A letter shows whether a new one has begun.
        _, *words, last = split_arg_string(os.environ["COMP_WORDS"] + "x")
        return words, last[:-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return completions without what bash takes for a word of its own."""
        found = super().get_completions(args, incomplete)
        start = incomplete[: max(map(incomplete.rfind, ":=")) + 1]
        for item in found:
            item.value = item.value.removeprefix(start)
        return found


@add_completion_class
class _Zsh(ZshComplete):
    source_template = _ZSH


@add_completion_class
class _Fish(FishComplete):
    source_template = _FISH


@click.command
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script that makes SHELL complete commands, options, models and values.

    For bash and zsh, put `eval "$(bnfold completion bash)"` into ~/.bashrc or ~/.zshrc. For fish,
    write it to ~/.config/fish/completions/bnfold.fish.
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - registered above
    script = found(ctx.find_root().command, {}, "bnfold", COMPLETION_VARIABLE).source()
    click.echo(script, nl=False)
    return 0
