"""`gradwatch token`: the bearer token, for curl and other clients."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.client import connect

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Print the token alone, or with the URL as JSON.

    Raises:
        GradwatchError: `unauthenticated` when the daemon is named by GRADWATCH_URL and no token is known for it.
    """
    address = connect(os.environ).address
    if not address.token:
        raise GradwatchError(
            "unauthenticated",
            where=address.url,
            expected="GRADWATCH_TOKEN",
            got="nothing",
            next_step="Run `gradwatch token` where the daemon runs, and set GRADWATCH_TOKEN here.",
        )
    if output.as_json:
        output.document({"url": address.url, "token": address.token})
    else:
        output.line(address.token)
    return 0
