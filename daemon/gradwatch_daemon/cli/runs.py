"""`gradwatch runs`: all of them in a table, or one with everything known of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.anomaly_id import short
from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.output import known, percent, printable

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.output import Output

CRASH_LINES = 12
"""Of a traceback: its end, which names the line that raised."""

OPEN_SHOWN = 10
"""Open anomalies that the lines of a run name, the newest."""

HEADS = ("RUN", "TRY", "STATE", "UPDATE", "LEVEL", "ANOMALIES", "DETECTORS", "COVERED", "LAST SEEN")


def run(args: Namespace, output: Output) -> int:
    """List runs, last seen first, or show one."""
    client = connect(os.environ)
    if args.run is not None:
        show(client, args.run, output)
        return 0
    answer = client.listed("/api/v1/runs", state=args.state)
    if output.as_json:
        output.document(answer)
    else:
        output.table(HEADS, [_row(item) for item in answer["items"]], "No run has connected yet.")
        for item in answer["items"]:
            if item.get("beside"):
                output.note(f"{item['run']}: {item['sentence']}")
    return 0


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    return (
        item["run"],
        item["attempt"],
        item["state"],
        progress(item),
        known(item["level"]["effective"]),
        item["anomalies_open"],
        standing(item["detectors"]),
        percent(item["coverage"]["share"]),
        item["last_seen_at"],
    )


def progress(item: dict[str, Any]) -> str:
    """`120/500`, `120`, or a dash before the first update."""
    total = f"/{item['updates_total']}" if item["updates_total"] is not None else ""
    return f"{known(item['update_last'])}{total}"


def standing(counts: dict[str, int]) -> str:
    """`5 armed, 3 blind`: a detector that cannot see is never left out."""
    said = [f"{counts[state]} {state}" for state in ("firing", "armed", "learning", "blind") if counts[state]]
    return ", ".join(said) or "none yet"


def show(client: Client, run: str, output: Output) -> None:
    """Print everything known of one run, and its open anomalies with their ids."""
    item = client.get(f"/api/v1/runs/{segment(run)}")
    if output.as_json:
        output.document(item)
        return
    level = item["level"]
    pin = f", pinned to {level['pin']}" if level["pin"] else ""
    output.line(f"{item['run']} (attempt {item['attempt']}, {item['state']})")
    output.line(printable(item["sentence"]))
    output.line(f"evidence   {printable(item['evidence'])}")
    if item["anomalies_open"]:
        _say_open(client, item, output)
    if item["crash"] is not None:
        for line in item["crash"]["traceback"].rstrip().splitlines()[-CRASH_LINES:]:
            output.line(f"  {printable(line)}")
    output.line(f"level      {known(level['effective'])} (base {level['base']}{pin})")
    output.line(printable(f"takes      {', '.join(item['verbs']) or 'no command'}"))
    output.line(f"sessions   {item['sessions']} of {item['world']}, last seen {item['last_seen_at']}")
    output.line(f"coverage   {percent(item['coverage']['share'])}: {item['coverage']['received']} updates received")
    for loss in item["losses"]:
        output.line(f"lost       {loss['records']} records: {printable(loss['reason'])}")
    if item["overhead"] is not None:
        output.line(f"overhead   {printable(item['overhead']['sentence'])} (since update {item['overhead']['update'] + 1})")
    output.line(f"detectors  {standing(item['detectors'])}")
    for one in item["standings"]:
        subject = f" [{one['subject']}]" if one["subject"] else ""
        reason = f": {one['reason']}" if one["reason"] else ""
        output.line(printable(f"  {one['state']:<9}{one['kind']}{subject}{reason}"))


def _say_open(client: Client, item: dict[str, Any], output: Output) -> None:
    for state in ("firing",) if item["live"] else ("firing", "ended"):
        answer = client.get("/api/v1/anomalies", run=item["run"], state=state, limit=OPEN_SHOWN)
        for one in answer["items"]:
            output.line(f"anomaly    {open_line(one, output)}")
        if answer["next"] is not None:
            output.note(f"There are more: `gradwatch anomalies {item['run']}` lists them.")


def open_line(one: dict[str, Any], output: Output) -> str:
    """An anomaly that is not resolved: the beginning of its id, as every verb takes it, what it is and since when."""
    what = f"{one['kind']} [{one['subject']}]" if one["subject"] else one["kind"]
    stood = "; it stood when the run ended" if one["state"] == "ended" else ""
    severity = output.paint(f"{one['severity']:<8}", one["severity"])
    return f"{short(one['id'])}  {severity}  {printable(what)} since {one['update_onset']}{stood}"
