"""What `top` asks of the daemon for somebody: a line of words becomes one request. What it answers is shown, nothing else."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import parse_level
from gradwatch_daemon.cli.client import TIMEOUT_S, segment
from gradwatch_daemon.cli.command import read_arguments
from gradwatch_daemon.cli.escalate import LEAST
from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError

if TYPE_CHECKING:
    from gradwatch_daemon.cli.client import Client

ESCALATE = "debug 50"
"""What the prompt suggests: a level, updates, and then a reason if one likes."""


COMMAND = "checkpoint"
"""What the prompt suggests: a verb that trainers often declare."""

COMMAND_WORDS_MAX = 33
"""A verb and as many arguments as a command may have."""

WAIT_S = 2.0
"""Most trainers are between two updates within that; what comes later is told by the stream."""


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


def command(client: Client, run: str, words: str) -> dict[str, Any]:
    """POST a command of `VERB [NAME=VALUE ...]`; the resource once the trainer has done it, or as it is after a moment.

    Raises:
        CommandError: 2 for no words, and what the daemon refuses.
        GradwatchError: `invalid-argument` for a word that is no argument.
    """
    verb, *arguments = words.split()[:COMMAND_WORDS_MAX] or [""]
    if not verb:
        raise CommandError(f"Expected a verb, such as {COMMAND!r}.", exit_code=EXIT_USAGE)
    body = {"verb": verb, "args": read_arguments(arguments), "reason": "", "id": uuid.uuid4().hex[:16]}
    path = f"/api/v1/runs/{segment(run)}/commands"
    item: dict[str, Any] = client.post(path, body, WAIT_S + TIMEOUT_S, wait=WAIT_S, until="ended")
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
