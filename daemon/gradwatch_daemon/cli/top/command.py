"""The verb: one picture on stdout with `--once`, else the live view."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_daemon.cli.client import connect
from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError
from gradwatch_daemon.cli.top.feed import Wanted, first_picture, read_closeup
from gradwatch_daemon.cli.top.frame import Frame
from gradwatch_daemon.cli.top.lines import ASCII, UNICODE
from gradwatch_daemon.cli.top.pages import draw_once
from gradwatch_daemon.cli.top.run_page import spark_cells
from gradwatch_daemon.cli.top.view import Page, View

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output

ROWS_ONCE = 40
"""Lines that `--once` takes where more could be said."""


def run(args: Namespace, output: Output) -> int:
    """Show once, or live until `q`.

    Raises:
        CommandError: 2 without a terminal or without Textual; what the daemon refuses, before anything is shown.
    """
    client = connect(os.environ)
    picture = first_picture(client)
    view = View(Page.RUN, run=args.run, before=(View(),)) if args.run is not None else View()
    if args.run is not None:
        picture = replace(picture, closeup=read_closeup(client, Wanted(args.run, points=spark_cells(_columns()))))
    glyphs = ASCII if args.ascii or not _speaks_unicode() else UNICODE
    if args.once:
        frame = Frame(_columns(), ROWS_ONCE, glyphs, args.readonly, _time(), 0.0)
        for drawn in draw_once(picture, view, frame):
            output.line("".join(output.paint(span.text, span.style) for span in drawn).rstrip())
        return 0
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("`gradwatch top` needs a terminal.", next_step="Add --once for one picture.", exit_code=EXIT_USAGE)
    try:
        from gradwatch_daemon.cli.top.app import TopApp
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise CommandError(
            "Textual is not installed, which draws the live view.",
            why=f"{error.name} is missing; `--once` needs none.",
            next_step='Install it from the clone of gradwatch: pip install -e ".[top]"',
            exit_code=EXIT_USAGE,
        ) from error
    TopApp(
        lambda: connect(os.environ), picture, view, glyphs=glyphs, readonly=args.readonly, time=_time, clock=time.monotonic
    ).run()
    return 0


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _columns() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def _time() -> str:
    return time.strftime("%H:%M:%S")
