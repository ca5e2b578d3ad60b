"""`gradwatch calm`: end every escalation of a run and let go of its pin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.level import say

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Ask for it. Returns 0; again changes nothing."""
    item = connect(os.environ).delete(f"/api/v1/runs/{segment(args.run)}/escalations")
    if output.as_json:
        output.document(item)
    else:
        say(item, output)
    return 0
