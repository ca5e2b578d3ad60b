"""`gradwatch health`: is the process alive? What a container's health check runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_daemon.cli.client import connect

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output

TIMEOUT_S = 3.0


def run(args: Namespace, output: Output) -> int:
    """GET /livez; 0 when it answers, 4 when it does not."""
    client = connect(os.environ)
    answer = client.get("/livez", TIMEOUT_S)
    if output.as_json:
        output.document({**answer, "url": client.address.url})
    else:
        output.line(f"{answer['status']} at {client.address.url}")
    return 0
