"""`gradwatch detectors`: what the daemon looks for, with which numbers, and what each detector needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.names import nearest
from gradwatch_daemon.cli.client import connect
from gradwatch_daemon.cli.failure import EXIT_NOT_FOUND, CommandError
from gradwatch_daemon.cli.output import number

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """List the catalogue of the profile in use, or show one entry.

    Raises:
        CommandError: 3 for a kind that is not in the catalogue, naming the nearest.
    """
    answer = connect(os.environ).listed("/api/v1/detectors", limit=None)
    chosen = answer["items"]
    if args.kind is not None:
        chosen = [item for item in chosen if item["kind"] == args.kind]
        if not chosen:
            raise CommandError(
                "No detector has this name.",
                why=f"kind: got {args.kind!r}; the profile in use is {answer['profile']}",
                next_step="List them with `gradwatch detectors`.",
                exit_code=EXIT_NOT_FOUND,
                did_you_mean=nearest(args.kind, [item["kind"] for item in answer["items"]]) or "",
            )
    if output.as_json:
        output.document(answer if args.kind is None else chosen[0])
    elif args.kind is None:
        output.note(f"profile {answer['profile']}")
        for one in answer["broken"]:
            output.note(f"not there: {one['name']} of {one['origin']}: {one['reason']}")
        output.table(("KIND", "SEVERITY", "THRESHOLDS", "NEEDS"), [_row(item) for item in chosen], "The catalogue is empty.")
    else:
        _show(chosen[0], output)
    return 0


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    thresholds = ", ".join(f"{t['name']} {t['comparison']} {number(t['value'])}" for t in item["thresholds"])
    return item["kind"], item["severity"], thresholds, ", ".join(need["signal"] for need in item["needs"])


def _show(item: dict[str, Any], output: Output) -> None:
    output.line(f"{item['kind']}: {item['title']} ({item['severity']})")
    output.line(f"origin      {item['origin']}")
    output.line(f"formula     {item['formula']}")
    for one in item["thresholds"]:
        changed = f" (the profile has {number(one['default'])})" if one["value"] != one["default"] else ""
        limit = f"{one['name']} {one['comparison']} {number(one['value'])} {one['unit']}"
        output.line(f"threshold   {limit}{changed}: {one['meaning']}")
    for need in item["needs"]:
        output.line(f"needs       {need['signal']}, from {need['line']}")
    output.line(f"warm-up     {item['warm_up']}")
    output.line(f"fails when  {item['fails_when']}")
    for step in item["try"]:
        output.line(f"try         {step}")
