"""`gradwatch ack`: say that you have seen an anomaly, and what it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_daemon.cli.anomaly_id import by_prefix
from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.output import printable

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Acknowledge, or take it back."""
    body: dict[str, object] = {"acknowledged": not args.undo}
    if args.note is not None:
        body["note"] = args.note
    client = connect(os.environ)
    item = by_prefix(client, args.id, lambda id_: client.patch(f"/api/v1/anomalies/{segment(id_)}", body))
    if output.as_json:
        output.document(item)
        return 0
    seen = item["acknowledged"]
    said = "not acknowledged any more" if seen is None else f"acknowledged by {seen['by']} at {seen['at']}"
    note = f": {seen['note']}" if seen and seen["note"] else ""
    output.line(printable(f"{item['run']} {item['kind']} of update {item['update_fired']}, {item['state']}: {said}{note}"))
    return 0
