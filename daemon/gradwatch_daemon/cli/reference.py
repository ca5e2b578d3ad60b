"""docs/cli.md, made of the parser and the table of exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.cli.grammar import read_grammar
from gradwatch_daemon.cli.parser import EXIT_CODES, build_parser

if TYPE_CHECKING:
    from gradwatch_daemon.cli.grammar import Verb, Word

INTRO = """\
# The command line

`gradwatch VERB --help` says the same. stdout is data, stderr is everything else. With `--json` a verb prints one JSON document
with the keys of the REST API (`anomalies --follow` one a line), whose JSON schema is in `docs/cli-schemas`. A command
that cannot do its work says what happened, why, and what to do next, and ends with a code that a script can tell apart; with
`--json` it says so as one line of JSON on stderr, see `docs/cli-schemas/error.json`.

The daemon is found by `GRADWATCH_URL` and `GRADWATCH_TOKEN`, else by the `connection.json` that `gradwatch serve` wrote.

Completion of verbs, flags, their choices and names of runs:

```console
$ eval "$(gradwatch completion bash)"        # in ~/.bashrc
$ eval "$(gradwatch completion zsh)"         # in ~/.zshrc, after compinit
$ gradwatch completion fish > ~/.config/fish/completions/gradwatch.fish
```
"""


PLAIN = {"RUN": "name of the run", "SIGNAL": "name of the signal", "KIND": "of this kind"}
"""What needs no words in `--help`."""


def reference_page() -> str:
    """The page without its notice."""
    verbs = read_grammar(build_parser())
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    listed = "".join(f"| [`{verb.name}`](#{verb.name}) | {_cell(verb.summary)} |\n" for verb in verbs)
    parts = [INTRO, f"| exit code | when |\n| --- | --- |\n{codes}", f"| verb | does |\n| --- | --- |\n{listed}"]
    return "\n".join([*parts, *(_section(verb) for verb in verbs)])


def _section(verb: Verb) -> str:
    rows = "".join(_row(word) for word in (*verb.places, *verb.flags) if word.names != ("-h", "--help"))
    table = f"\n| argument | |\n| --- | --- |\n{rows}" if rows else ""
    return f"## {verb.name}\n\n{verb.summary[:1].upper()}{verb.summary[1:]}.\n\n```\n{verb.usage}\n```\n{table}"


def _row(word: Word) -> str:
    name = " ".join([", ".join(word.names), word.value]).strip()
    listed = word.choices and (word.names or not word.help)
    choices = f" One of {', '.join(f'`{choice}`' for choice in word.choices)}." if listed else ""
    said = f"{word.help or PLAIN.get(word.value, '')}{choices}".strip()
    return f"| `{_cell(name)}` | {_cell(said)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
