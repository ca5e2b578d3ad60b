"""What `top` asks of the daemon for somebody: a line of words becomes one request. What it answers is shown, nothing else."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import parse_level
from gradwatch_daemon.cli.client import segment
from gradwatch_daemon.cli.escalate import LEAST
from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError

if TYPE_CHECKING:
    from gradwatch_daemon.cli.client import Client

ESCALATE = "debug 50"
"""What the prompt suggests: a level, updates, and then a reason if one likes."""


def escalate(client: Client, run: str, words: str) -> dict[str, Any]:
    """POST an escalation of `LEVEL UPDATES [REASON]`; the resource as the daemon has it.

    Raises:
        CommandError: 2 for words that are no such thing, and what the daemon refuses.
        GradwatchError: `invalid-argument` for a level that none can be raised to.
    """
    level, _, rest = words.strip().partition(" ")
    updates, _, reason = rest.strip().partition(" ")
    name = parse_level(level, "level", LEAST).name.lower()
    if not updates.isdigit() or not int(updates):
        raise CommandError(f"Expected a level and a number of updates, such as {ESCALATE!r}.", exit_code=EXIT_USAGE)
    body = {"level": name, "updates": int(updates), "reason": reason.strip(), "id": uuid.uuid4().hex[:16]}
    item: dict[str, Any] = client.post(f"/api/v1/runs/{segment(run)}/escalations", body)
    return item


def acknowledge(client: Client, id_: str, note: str) -> dict[str, Any]:
    """PATCH an anomaly as seen, with a note if there is one."""
    return _patch(client, id_, {"acknowledged": True, **({"note": note.strip()} if note.strip() else {})})


def write_note(client: Client, id_: str, note: str) -> dict[str, Any]:
    """PATCH the note of an anomaly."""
    return _patch(client, id_, {"note": note.strip()})


def _patch(client: Client, id_: str, body: dict[str, object]) -> dict[str, Any]:
    item: dict[str, Any] = client.patch(f"/api/v1/anomalies/{segment(id_)}", body)
    return item
