"""What the parser is made of: errors in our words, verbs with `--json`, and types of arguments."""

from __future__ import annotations

import argparse
from typing import NoReturn

from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one sentence, the nearest word, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise the usage error that `main` prints."""
        from gradwatch_contracts.names import nearest  # difflib takes as long as the parser, and `--help` needs none

        hint = ""
        if "invalid choice: " in message:
            word, _, choices = message.partition("invalid choice: ")[2].partition(" (choose from ")
            known = [choice.strip().strip("'") for choice in choices.rstrip(")").split(",")]
            hint = nearest(word.strip("'"), known) or ""
        raise CommandError(
            f"{message[:1].lower()}{message[1:]}.",
            next_step=f"See `{self.prog} --help`.",
            exit_code=EXIT_USAGE,
            did_you_mean=hint,
        )


def add_verb(verbs: argparse._SubParsersAction[Parser], name: str, summary: str) -> Parser:
    """A verb that takes `--json`. Abbreviated flags are refused: they would change meaning when a flag is added."""
    verb = verbs.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:] + ".", allow_abbrev=False)
    verb.add_argument("--json", action="store_true", help="print one JSON document, with the keys of the REST API")
    return verb


def positive(text: str) -> int:
    """A number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def lifetime(text: str) -> float:
    """Seconds of a text such as 45m, 12h or 30d."""
    unit = {"m": 60, "h": 3600, "d": 86_400}.get(text[-1:])
    if unit is None or not text[:-1].isdigit() or not int(text[:-1]):
        raise argparse.ArgumentTypeError(f"expected a time such as 45m, 12h or 30d, got {text!r}")
    return float(int(text[:-1]) * unit)


def seconds(text: str) -> float:
    """Seconds of up to a day."""
    value = float(text)
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"expected 0 to 86400 seconds, got {text}")
    return value


positive.__name__ = "number"
seconds.__name__ = "number of seconds"
