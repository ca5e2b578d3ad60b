"""`gradwatch stop`, `dump`, `checkpoint` and `command`: ask a run to do something, and wait until it did."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.client import TIMEOUT_S, Client, connect, segment
from gradwatch_daemon.cli.failure import EXIT_REFUSED
from gradwatch_daemon.cli.output import printable

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

    from gradwatch_daemon.cli.output import Output

WAIT_STEP_S = 20.0
"""One waiting request: below the 30 s that the API takes and after which proxies give up."""

_OPEN = ("requested", "delivered", "applied")


def run(args: Namespace, output: Output) -> int:
    """Ask, and with `--wait` report what the trainer made of it.

    Returns 0 when it was asked for (with `--wait`: done), 5 when it came to nothing.

    Raises:
        GradwatchError: `invalid-argument` for an argument that is not NAME=VALUE, `timed-out` when `--wait` ran out first.
    """
    given = read_arguments(getattr(args, "arguments", ()))
    if args.verb == "profile":
        if args.output is not None or args.wait is not None:
            check_place(args.output)
        given = {"updates": args.updates, "stacks": args.stacks}
    client = connect(os.environ)
    item = ask(client, args, getattr(args, "word", args.verb), given)
    code, item = follow(client, item, args.wait, output)
    if item["artifact"] is not None:
        fetch(client, item, getattr(args, "output", None), output)
    return code


def ask(client: Client, args: Namespace, verb: str, given: dict[str, Any]) -> dict[str, Any]:
    """Ask for a verb; the command as it was accepted."""
    # An id of ours makes the request safe to repeat when its answer is lost on the way.
    body = {"verb": verb, "args": given, "reason": args.reason, "id": args.id or uuid.uuid4().hex[:16]}
    if args.rank is not None:
        body["rank"] = args.rank
    item: dict[str, Any] = client.post(f"/api/v1/runs/{segment(args.run)}/commands", body)
    return item


def follow(client: Client, item: dict[str, Any], wait_s: float | None, output: Output) -> tuple[int, dict[str, Any]]:
    """Say what was asked for and, where it is waited for, what became of it: exit code and command; raises as `run`."""
    if wait_s is not None:
        if not output.as_json:
            say(item, output)
        item = wait_for(client, item, wait_s, time.monotonic)
    if output.as_json:
        output.document(item)
    else:
        say(item, output)
    if wait_s is not None and item["state"] in _OPEN:
        raise GradwatchError(
            "timed-out",
            where=f"command {item['id']}",
            expected=f"the trainer to have done it within {wait_s:g} s",
            got=item["state"],
            next_step=f"It may still come: look with `gradwatch commands {item['run']}`.",
        )
    return 0 if item["state"] in ("requested", "delivered", "applied", "ended") else EXIT_REFUSED, item


def fetch(client: Client, item: dict[str, Any], output_file: str | None, output: Output) -> None:
    """Get the file of a command; a file that is there already is not overwritten unless it was named.

    Raises:
        GradwatchError: `invalid-argument` for a place that cannot be written to.
    """
    place = output_file or os.path.basename(item["artifact"]["name"])
    try:
        with open(place, "wb" if output_file else "xb") as file:
            client.download(item["artifact"]["url"], file)
    except OSError as error:
        raise GradwatchError(
            "invalid-argument",
            where="--output",
            expected="a file that can be written, and is not there yet unless it is named",
            got=f"{place}: {error.strerror or error}",
            next_step=f"Get it with `gradwatch commands {item['run']} --fetch {item['id']} --output FILE`.",
        ) from error
    output.note(f"{item['artifact']['bytes']} bytes in {place}; open it with https://ui.perfetto.dev")


def check_place(output_file: str | None) -> None:
    """Refuse what cannot be written to before a trainer is slowed for it. Writes nothing.

    Raises:
        GradwatchError: `invalid-argument`, naming the place.
    """
    place = os.path.abspath(output_file or "trace")
    folder = os.path.dirname(place)
    if not os.path.isdir(folder):
        why = "there is no such directory"
    elif not output_file or not os.path.exists(place):
        why = "" if os.access(folder, os.W_OK) else "its directory cannot be written to"
    else:
        why = "it is a directory" if os.path.isdir(place) else "" if os.access(place, os.W_OK) else "it cannot be written to"
    if why:
        where, got = "--output", f"{output_file or folder}: {why}"
        next_step = "Name another with --output FILE; nothing was asked of the trainer yet."
        raise GradwatchError(
            "invalid-argument", where=where, expected="a file that can be written", got=got, next_step=next_step
        )


def wait_for(client: Client, item: dict[str, Any], wait_s: float, clock: Callable[[], float]) -> dict[str, Any]:
    """The newest state of a command once it is over, or after `wait_s`."""
    path = f"/api/v1/runs/{segment(item['run'])}/commands/{segment(item['id'])}"
    deadline = clock() + wait_s
    while item["state"] in _OPEN and (left := deadline - clock()) > 0:
        step = min(left, WAIT_STEP_S)
        item = client.get(path, step + TIMEOUT_S, wait=round(step, 3), until="ended")
    return item


def say(item: dict[str, Any], output: Output) -> None:
    """One line for a person, and one for each rank where they differ."""
    output.line(printable(f"{item['run']} {item['id']} {item['verb']}: {item['sentence']}"))
    if len({one["state"] for one in item["ranks"]}) > 1:
        for one in item["ranks"]:
            why = f": {one['reason']}" if one["reason"] else ""
            at = "" if one["update"] is None else f" at update {one['update']}"
            output.line(printable(f"  rank {one['rank']} {one['state']}{at}{why}"))


def read_arguments(given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE words as arguments; a value that is a JSON number, true, false or null is that, else it is text.

    Raises:
        GradwatchError: `invalid-argument` for a word without a name or "=".
    """
    read: dict[str, Any] = {}
    for word in given:
        name, separator, text = word.partition("=")
        if not name or not separator:
            next_step = "Write each as --arg tag=7, in quotes where it holds spaces."
            raise GradwatchError(
                "invalid-argument", where="--arg", expected="NAME=VALUE", got=repr(word)[:80], next_step=next_step
            )
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        read[name] = text if isinstance(value, (dict, list)) else value
    return read
