"""`gradwatch escalate`: raise a run's telemetry level for some updates, and wait until the trainer has applied it."""

from __future__ import annotations

import os
import time
import uuid
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import Level, parse_level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.client import TIMEOUT_S, Client, connect, segment
from gradwatch_daemon.cli.failure import EXIT_REFUSED
from gradwatch_daemon.cli.output import printable

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from gradwatch_daemon.cli.output import Output

WAIT_STEP_S = 20.0
"""One waiting request: below the 30 s that the API takes and after which proxies give up."""

LEAST = Level.MINIMAL
"""An escalation only raises, so there is none to OFF."""

_UNDECIDED = ("requested", "delivered")


def run(args: Namespace, output: Output) -> int:
    """Ask, and with `--wait` report what the trainer made of it.

    Returns 0 when it was asked for (with `--wait`: applied), 5 when it was rejected, cancelled or lost.

    Raises:
        GradwatchError: `invalid-argument` for a level that none can be raised to, `timed-out` when `--wait` ran out first.
    """
    level = parse_level(args.level, "--level", LEAST).name.lower()
    client = connect(os.environ)
    # An id of ours makes the request safe to repeat when its answer is lost on the way.
    id_ = args.id or uuid.uuid4().hex[:16]
    body = {"level": level, "updates": args.updates, "reason": args.reason, "id": id_}
    item = client.post(f"/api/v1/runs/{segment(args.run)}/escalations", body)
    if args.wait is not None:
        if not output.as_json:
            _say(item, output)
        item = wait_for(client, item, args.wait, time.monotonic)
    if output.as_json:
        output.document(item)
    else:
        _say(item, output)
    if args.wait is not None and item["state"] in _UNDECIDED:
        raise GradwatchError(
            "timed-out",
            where=f"escalation {item['id']}",
            expected=f"the trainer to apply it within {args.wait:g} s",
            got=item["state"],
            next_step=f"It may still come: repeat the command with --id {item['id']}.",
        )
    return EXIT_REFUSED if item["state"] in ("rejected", "cancelled", "lost") else 0


def wait_for(client: Client, item: dict[str, Any], wait_s: float, clock: Callable[[], float]) -> dict[str, Any]:
    """The newest state of an escalation once it is applied, ended or refused, or after `wait_s`."""
    path = f"/api/v1/runs/{segment(item['run'])}/escalations/{segment(item['id'])}"
    deadline = clock() + wait_s
    while item["state"] in _UNDECIDED and (left := deadline - clock()) > 0:
        step = min(left, WAIT_STEP_S)
        item = client.get(path, step + TIMEOUT_S, wait=round(step, 3))
    return item


def _say(item: dict[str, Any], output: Output) -> None:
    output.line(printable(f"{item['run']} {item['id']}: {item['sentence']}"))
