"""`gradwatch series`: one signal over updates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.columns import STATUS_REASON, Status
from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.output import lost_words, number

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Print raw points, or buckets when there are more updates than points."""
    client = connect(os.environ)
    answer = client.get(
        f"/api/v1/runs/{segment(args.run)}/series",
        signal=args.signal,
        subject=args.subject,
        from_=args.first,
        to=args.last,
        points=args.points,
        attempt=args.attempt,
        rank=args.rank,
    )
    if output.as_json:
        output.document(answer)
        return 0
    subject = f" [{answer['subject']}]" if answer["subject"] else ""
    output.note(f"{answer['signal']}{subject} in {answer['unit']}: {answer['estimator']}, {answer['window']}")
    if lost := lost_words(answer["coverage"]):
        output.note(lost)
    if answer["thinned"]:
        output.note(f"Of {answer['thinned']} of these {answer['rows']} updates only summaries of 64 are kept.")
    empty = f"{args.run} has no update in this range."
    if answer["bucket"] == 1:
        output.table(("UPDATE", "VALUE"), _points(answer), empty)
    else:
        heads = ("UPDATES", "LOW", "HIGH", "LAST", "MEASURED", "NON-FINITE")
        output.table(heads, _buckets(answer), empty)
    return 0


def reason(status: str) -> str:
    """The clause of a status name; the name itself for one that a newer daemon knows and we do not."""
    return STATUS_REASON[Status[status.upper()]] if status.upper() in Status.__members__ else status


def _points(answer: dict[str, Any]) -> list[tuple[object, ...]]:
    columns = zip(answer["update"], answer["last"], answer["status"], strict=True)
    return [(update, number(value, reason(status))) for update, value, status in columns]


def _buckets(answer: dict[str, Any]) -> list[tuple[object, ...]]:
    """Low and high are those of the finite values, so a bucket of NaN alone has neither and says so."""
    rows = []
    for i, update in enumerate(answer["update"]):
        why = reason(answer["status"][i]) if not answer["measured"][i] else "no finite value"
        span = f"{update}-{update + answer['bucket'] - 1}"
        values = [number(answer[name][i], why) for name in ("low", "high", "last")]
        rows.append((span, *values, answer["measured"][i], answer["nonfinite"][i]))
    return rows
