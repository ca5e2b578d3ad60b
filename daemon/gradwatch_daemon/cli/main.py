"""The entry point: parse, import the one verb, run it, and turn whatever happens into an exit code."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.failure import EXIT_INTERRUPTED, EXIT_PIPE_CLOSED, CommandError
from gradwatch_daemon.cli.output import Output, wants_colour
from gradwatch_daemon.cli.parser import build_parser

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `argv` is without the program's name."""
    given = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a dash still gets its answer
    try:
        return _run(given)
    except GradwatchError as error:
        return _fail(CommandError.of(error), given)
    except CommandError as failure:
        return _fail(failure, given)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `gradwatch runs | head`: the reader has enough. Nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED


def _run(given: list[str]) -> int:
    if given[:1] == ["demo"]:
        from gradwatch_daemon.cli import demo

        return demo.run(given[1:])
    command: list[str] = []
    if given[:1] == ["run"] and "--" in given:
        at = given.index("--")
        given, command = given[:at], given[at + 1 :]
    parser = build_parser()
    args, left = parser.parse_known_args(given)
    if left and (args.verb != "run" or left[0].startswith("-")):  # `run train.py` lacks its dashes: the verb says so
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    args.command = command
    output = Output(sys.stdout, sys.stderr, as_json=getattr(args, "json", False), colour=wants_colour(sys.stdout, os.environ))
    # A module cannot be called `import`, and several verbs may share one.
    module = getattr(args, "module", args.verb)
    verb = import_module(f"gradwatch_daemon.cli.{module}{'_' if iskeyword(module) else ''}")
    code: int = verb.run(args, output)
    sys.stdout.flush()
    return code


def _fail(failure: CommandError, given: Sequence[str]) -> int:
    """Say why, in words or, as far as `--json` was asked for before anything else was understood, as one line of JSON."""
    own = given[: given.index("--")] if "--" in given else given
    if "--json" in own:
        import json

        print(json.dumps(failure.document(), ensure_ascii=False), file=sys.stderr)
    else:
        print("\n".join(failure.lines()), file=sys.stderr)
    return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
