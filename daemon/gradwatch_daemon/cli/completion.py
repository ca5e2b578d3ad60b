"""`gradwatch completion`: a script for bash, zsh or fish, made of the parser; names of runs are asked of the daemon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.client import connect
from gradwatch_daemon.cli.failure import CommandError
from gradwatch_daemon.cli.grammar import read_grammar
from gradwatch_daemon.cli.parser import build_parser

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from gradwatch_daemon.cli.grammar import Verb, Word
    from gradwatch_daemon.cli.output import Output

TIMEOUT_S = 1.0
"""A key was pressed: a daemon that does not answer at once is none."""

FILES = frozenset({"FILE", "DIR", "PATH", "RUN|FILE"})


def run(args: Namespace, output: Output) -> int:
    """Print the script of a shell, or what one asks for."""
    if args.shell == "runs":
        for name in known_runs():
            output.line(name)
        return 0
    script = {"bash": bash, "zsh": zsh, "fish": fish}[args.shell]
    output.line(script(read_grammar(build_parser())).rstrip("\n"))
    return 0


def known_runs() -> list[str]:
    """Names of runs, none where they cannot be had: a shell has no place for a complaint."""
    try:
        answer = connect(os.environ).get("/api/v1/runs", TIMEOUT_S, limit=1000)
    except (CommandError, GradwatchError):
        return []
    return [str(item["run"]) for item in answer["items"]]


def _flags(verb: Verb) -> str:
    return " ".join(name for word in verb.flags for name in word.names)


def _places(verb: Verb) -> str:
    return " ".join(choice for word in verb.places for choice in word.choices)


def _wants_file(word: Word) -> bool:
    return word.value in FILES


def bash(verbs: Sequence[Verb]) -> str:
    """For `eval "$(gradwatch completion bash)"` in ~/.bashrc."""
    cases = "\n".join(_bash_verb(verb) for verb in verbs)
    return f"""\
# gradwatch completion for bash. In ~/.bashrc: eval "$(gradwatch completion bash)"
_gradwatch() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(verb.name for verb in verbs)} --help" -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _gradwatch gradwatch
"""


def _bash_verb(verb: Verb) -> str:
    lines = [f"    {verb.name})", '        case "$before" in']
    for word in verb.flags:
        pattern = "|".join(word.names)
        if word.choices:
            lines.append(f'        {pattern}) COMPREPLY=($(compgen -W "{" ".join(word.choices)}" -- "$word")); return ;;')
        elif _wants_file(word):
            lines.append(f'        {pattern}) COMPREPLY=($(compgen -f -- "$word")); return ;;')
        elif word.value:
            lines.append(f"        {pattern}) return ;;")
    lines.append("        esac")
    ours = f"{_flags(verb)} {_places(verb)}".strip()
    lines.append(f'        words="{ours}"')
    if verb.takes_run:
        lines.append('        case "$word" in -*) ;; *) words="$words $(gradwatch completion runs 2>/dev/null)" ;; esac')
    return "\n".join([*lines, "        ;;"])


def zsh(verbs: Sequence[Verb]) -> str:
    """For `eval "$(gradwatch completion zsh)"` after compinit, or as `_gradwatch` on the fpath."""
    listed = "\n".join(f"        {_zsh_quoted(f'{verb.name}:{verb.summary}')}" for verb in verbs)
    cases = "\n".join(_zsh_verb(verb) for verb in verbs)
    return f"""\
#compdef gradwatch
# gradwatch completion for zsh. In ~/.zshrc, after compinit: eval "$(gradwatch completion zsh)"
_gradwatch_runs() {{
    local -a runs
    runs=(${{(f)"$(gradwatch completion runs 2>/dev/null)"}})
    compadd -a runs
}}
_gradwatch() {{
    local -a verbs
    verbs=(
{listed}
    )
    if (( CURRENT == 2 )); then
        _describe verb verbs
        return
    fi
    local verb=$words[2]
    shift words
    (( CURRENT-- ))
    case $verb in
{cases}
    esac
}}
compdef _gradwatch gradwatch
"""


def _zsh_quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"


def _zsh_action(word: Word) -> str:
    if word.choices:
        return f"({' '.join(word.choices)})"
    if "RUN" in word.value.split("|") and word.value not in FILES:
        return "_gradwatch_runs"
    return "_files" if _wants_file(word) else " "


def _zsh_verb(verb: Verb) -> str:
    parts = []
    for word in verb.flags:
        text = word.help.replace("[", "(").replace("]", ")").replace(":", ";")
        for name in word.names:
            taken = f":{word.value.lower()}:{_zsh_action(word)}" if word.value else ""
            parts.append(_zsh_quoted(f"{name}[{text}]{taken}"))
    for place, word in enumerate(verb.places, 1):
        parts.append(_zsh_quoted(f"{place}:{word.value.lower().replace(':', ';')}:{_zsh_action(word)}"))
    return f"    {verb.name}) _arguments {' '.join(parts)} ;;"


def fish(verbs: Sequence[Verb]) -> str:
    """For `gradwatch completion fish > ~/.config/fish/completions/gradwatch.fish`."""
    lines = ["# gradwatch completion for fish", "complete -c gradwatch -f"]
    for verb in verbs:
        here = f"-n '__fish_seen_subcommand_from {verb.name}'"
        lines.append(f"complete -c gradwatch -n __fish_use_subcommand -a {verb.name} -d {_fish_quoted(verb.summary)}")
        for word in verb.flags:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in word.names)
            taken = ""
            if word.choices:
                taken = f" -xa {_fish_quoted(' '.join(word.choices))}"
            elif _wants_file(word):
                taken = " -rF"
            elif word.value:
                taken = " -x"
            lines.append(f"complete -c gradwatch {here} {names}{taken} -d {_fish_quoted(word.help)}")
        if choices := _places(verb):
            lines.append(f"complete -c gradwatch {here} -a {_fish_quoted(choices)}")
        if verb.takes_run:
            lines.append(f"complete -c gradwatch {here} -a '(gradwatch completion runs 2>/dev/null)'")
    return "\n".join(lines) + "\n"


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
