"""`gradwatch level`: show the level of a run, change its base, pin it or let go of the pin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import parse_level
from gradwatch_daemon.cli.client import TIMEOUT_S, connect, segment
from gradwatch_daemon.cli.output import printable

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output

WAIT_MAX_S = 30.0
"""What the API waits at most in one request."""


def run(args: Namespace, output: Output) -> int:
    """Change what was named, or show what holds. Returns 0.

    Raises:
        GradwatchError: `invalid-argument` for a word that is no level.
    """
    change: dict[str, Any] = {}
    if args.base is not None:
        change["base"] = parse_level(args.base, "--base").name.lower()
    if args.pin is not None:
        change["pin"] = None if args.pin.lower() == "none" else parse_level(args.pin, "--pin").name.lower()
    client, path = connect(os.environ), f"/api/v1/runs/{segment(args.run)}"
    if change:
        wait = min(args.wait or 0.0, WAIT_MAX_S)
        item = client.patch(path, {"level": change}, wait + TIMEOUT_S, wait=wait)
    else:
        item = client.get(path)
    if output.as_json:
        output.document(item)
    else:
        say(item, output)
        if not change:
            show_levels(item, output)
    return 0


def say(item: dict[str, Any], output: Output) -> None:
    """One line: base, pin, and what the trainer last collected at."""
    level = item["level"]
    pinned = f"pinned to {level['pin']}" if level["pin"] else "not pinned"
    now = f"the newest update was collected at {level['effective']}" if level["effective"] else "no update has come yet"
    output.line(printable(f"{item['run']}: base {level['base']}, {pinned}; {now}."))


def show_levels(item: dict[str, Any], output: Output) -> None:
    """What each level costs on this run, what rules may still do, and what actions would have done."""
    output.table(
        ("level", "adds signals", "updates measured", "share of time"),
        [
            (one["level"], len(one["signals"]), one["updates"], "–" if one["share"] is None else f"{one['share']:.2%}")
            for one in item["levels"]
        ],
        "No level is known.",
    )
    now = next((one for one in item["levels"] if one["level"] == item["level"]["effective"]), None)
    if now is not None:
        shares = {one["name"]: one["share"] for one in now["collectors"]}
        timed = [f"{name} {share:.2%}" for name, share in shares.items() if share is not None]
        output.line(printable(f"at {now['level']}: {', '.join(shares)}"))
        if timed:
            output.line(printable(f"of the trainer's own time: {', '.join(timed)}; the others are within core"))
    room = item["allowance"]
    if room is not None:
        again = "" if room["refill_update"] is None else f"; room again at update {room['refill_update']}"
        output.line(f"rules held it for {room['spent']} of {room['may']} updates of the last {room['window']}{again}")
    for action in item["actions"]:
        done = "is done" if action["enabled"] else f"a shadow, would have been done {action['would_have']} times"
        output.line(printable(f"{action['verb']} on {action['when']}: {done}"))
