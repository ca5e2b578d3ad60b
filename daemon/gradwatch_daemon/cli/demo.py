"""`gradwatch demo`: hand everything to the demo, which is a trainer and so lives with the agent, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError

NEEDED = ("torch", "gymnasium", "fastapi")
"""The demo trains and serves: it needs both extras."""


def run(arguments: list[str]) -> int:
    """Run `python -m gradwatch_agent.demo` with the arguments and return its exit code.

    Raises:
        CommandError: when what it needs is not installed.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"The demo needs {' and '.join(missing)}.",
            why="They are not installed beside gradwatch.",
            next_step='Install them from the clone of gradwatch: pip install -e ".[daemon,demo]"',
            exit_code=EXIT_USAGE,
        )
    # Ctrl-C reaches the child too: it tidies up and decides the exit code.
    with subprocess.Popen([sys.executable, "-m", "gradwatch_agent.demo", *arguments]) as child:
        while True:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                continue
            return code if code >= 0 else 128 - code
