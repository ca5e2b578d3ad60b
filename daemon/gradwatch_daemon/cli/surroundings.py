"""What `gradwatch doctor` can find wrong around this command: the runtime directory, `connection.json`, the environment."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch_contracts.connection import FILE_NAME, Connection, runtime_dir
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.ailments import Ailment
from gradwatch_daemon.cli.presence import is_abandoned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def other_places(env: Mapping[str, str], uid: int) -> list[Path]:
    """Where a daemon started from another environment (ssh, cron, systemd) puts its file."""
    here = Path(runtime_dir(env, uid))
    places = (Path(runtime_dir({}, uid)), Path(f"/run/user/{uid}/gradwatch"))
    return [place for place in places if place != here]


def check_surroundings(env: Mapping[str, str], uid: int, elsewhere: Iterable[Path]) -> Iterator[Ailment]:
    """What stands in the way before anything is asked of a daemon. `elsewhere` are directories to look for one in."""
    directory = Path(runtime_dir(env, uid))
    path = directory / FILE_NAME
    yield from _check_mode(directory, uid, "runtime-dir-open", "700")
    yield from _check_mode(path, uid, "connection-open", "600")
    if path.is_file():
        yield from _check_connection(path, env, uid)
    else:
        for place in elsewhere:
            if _is_file(place / FILE_NAME):
                yield Ailment(
                    "other-runtime-dir",
                    f"A daemon left its connection.json in {place}, and this shell looks in {directory}.",
                    "trainers started here do not find it either",
                    f"Set GRADWATCH_RUNTIME_DIR={place} here, or {directory} for the daemon.",
                )
    if env.get("GRADWATCH_MODE", "").lower() == "off":
        yield Ailment(
            "mode-off", "GRADWATCH_MODE is off: trainers started here measure nothing.", "", "Unset it, or set it to on."
        )


def is_gone(env: Mapping[str, str], uid: int) -> int | None:
    """The pid in `connection.json` when the daemon's lock is free, or this machine has no such process; None when it has, or
    there is no such file.

    In a container the pid means another process, or none: without a lock only a daemon that does not answer either is gone.
    """
    directory = Path(runtime_dir(env, uid))
    try:
        pid = Connection.from_json((directory / FILE_NAME).read_text(encoding="utf-8")).pid
        if is_abandoned(directory):
            return pid
        os.kill(pid, 0)
    except ProcessLookupError:
        return pid
    except (OSError, OverflowError, GradwatchError):
        return None
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # the directory of another user


def _check_mode(path: Path, uid: int, code: str, mode: str) -> Iterator[Ailment]:
    try:
        info = path.stat()
    except OSError:
        return
    if info.st_uid not in (uid, 0):
        yield Ailment(
            code,
            f"{path} belongs to another user.",
            f"owner {info.st_uid}, not {uid}",
            "Choose another directory with GRADWATCH_RUNTIME_DIR.",
        )
    elif info.st_mode & OTHERS:
        yield Ailment(
            code,
            f"Others may use {path}.",
            f"mode {stat.S_IMODE(info.st_mode):o}, expected {mode}",
            f"chmod {mode} {path}",
        )


def _check_connection(path: Path, env: Mapping[str, str], uid: int) -> Iterator[Ailment]:
    try:
        connection = Connection.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        yield Ailment("connection-unreadable", f"{path} cannot be read.", str(error), "Restart the daemon to write it anew.")
        return
    except GradwatchError as error:
        yield Ailment("connection-unreadable", f"{path} cannot be read.", error.detail, error.next_step)
        return
    yield from _check_mode(Path(connection.token_file), uid, "token-open", "600")
    for name, own in (("GRADWATCH_URL", connection.url), ("GRADWATCH_ENDPOINT", connection.ingest)):
        given = env.get(name, "").rstrip("/")
        if given not in ("", "auto", own):
            who = "this command asks" if name == "GRADWATCH_URL" else "trainers started here send to"
            yield Ailment(
                "two-daemons",
                f"{name} names another daemon than connection.json.",
                f"{who} {given}; {path} says {own}",
                f"Unset {name} if that is not meant.",
                grave=False,
            )
