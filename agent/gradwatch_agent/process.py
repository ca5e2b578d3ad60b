"""Who this process is, where its daemon is, and what holds after a fork."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
import uuid
import weakref
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from gradwatch_contracts import names
from gradwatch_contracts.connection import FILE_NAME, LOCK_FILE, TCP_DEFAULT, Connection, read_endpoint, runtime_dir
from gradwatch_contracts.errors import GradwatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOGGER = logging.getLogger("gradwatch")
ENDPOINT = re.compile(r"(ipc|tcp)://\S+")
LOOPBACK = re.compile(r"tcp://(127(\.\d{1,3}){3}|localhost|\[::1\])(:[^;]*)?")
"""Where what is sent stays on this machine. Without `;`, behind which ZeroMQ reads another address."""
CONNECTION_BYTES_MAX = 64 * 1024
"""connection.json has five short fields."""


@dataclass(frozen=True, slots=True)
class Identity:
    """This process as the daemon sees it. `launch_id` is equal on all ranks of one start; `session` is this process only."""

    launch_id: str
    session: str
    rank: int
    world: int
    host: str
    pid: int

    def forked(self) -> bool:
        """Whether we are in a child of the process that made this: then everything of ours is inert."""
        return os.getpid() != self.pid


def identify(env: Mapping[str, str], *, host: str, pid: int, parent_pid: int) -> Identity:
    """Read who this process is from its environment.

    Rank and world are RANK and WORLD_SIZE. The launch id is GRADWATCH_LAUNCH_ID, else a fresh one for a lone process,
    else what the launcher (torchrun, SLURM) gave to all ranks: two starts inside one SLURM job share its id, so a lone
    process must not use it.

    Raises:
        GradwatchError: `invalid-argument` for a rank, world size or launch id that is none.
    """
    rank, world = _count(env, "RANK", 0, 0), _count(env, "WORLD_SIZE", 1, 1)
    if rank >= world:
        next_step = "Start all ranks with one launcher, or unset RANK and WORLD_SIZE for a process of its own."
        expected = f"less than WORLD_SIZE={world}"
        raise GradwatchError("invalid-argument", where="RANK", expected=expected, got=str(rank), next_step=next_step)
    fresh = uuid.uuid4().hex
    given = env.get("GRADWATCH_LAUNCH_ID")
    if given:
        launch_id = names.check_name(given, names.ID, "GRADWATCH_LAUNCH_ID")
    else:
        launch_id = (_shared_launch(env, host, parent_pid, world) if world > 1 else "") or fresh
    return Identity(launch_id, uuid.uuid4().hex, rank, world, host, pid)


def _shared_launch(env: Mapping[str, str], host: str, parent_pid: int, world: int) -> str:
    """An id that all ranks of this start derive alike, '' when the environment has none."""
    if env.get("TORCHELASTIC_RUN_ID"):
        parts = [env["TORCHELASTIC_RUN_ID"], env.get("TORCHELASTIC_RESTART_COUNT", "0")]
        if parts[0] == "none":  # torchrun without --rdzv-id: every such start has the same one
            one_node = env.get("LOCAL_WORLD_SIZE") == str(world)
            parts += [host, str(parent_pid)] if one_node else [env.get("MASTER_ADDR", ""), env.get("MASTER_PORT", "")]
        return _as_id("torchrun", parts)
    if env.get("SLURM_JOB_ID"):
        return _as_id("slurm", [env["SLURM_JOB_ID"], env.get("SLURM_STEP_ID", ""), env.get("SLURM_RESTART_COUNT", "0")])
    if env.get("MASTER_ADDR"):
        return _as_id("master", [env["MASTER_ADDR"], env.get("MASTER_PORT", "")])
    return ""


def _as_id(launcher: str, parts: list[str]) -> str:
    digest = blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(part for part in parts if part)).strip("-")
    return f"{launcher}-{readable[:40]}-{digest}"


def _count(env: Mapping[str, str], name: str, default: int, low: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not low <= int(text) <= 1_000_000:
        expected, next_step = f"a whole number from {low}", f"Correct {name} in the environment, or unset it."
        raise GradwatchError("invalid-argument", where=name, expected=expected, got=repr(text)[:40], next_step=next_step)
    return int(text)


def resolve_endpoint(endpoint: str, env: Mapping[str, str], uid: int | None = None) -> tuple[str, str]:
    """Return the ZeroMQ endpoint of the daemon and the secret for it ('' when none is needed or known).

    `auto` is GRADWATCH_ENDPOINT, else what `connection.json` of this user says, else TCP on loopback. The secret is
    used for no other endpoint than the one it is written beside. A runtime directory or file that others own or can
    read is not believed: one warning says so. Neither is one whose daemon is known to be gone, where it has a secret that
    whoever listens there now would be told: then it is the socket in the runtime directory, which nobody else can bind.

    Raises:
        GradwatchError: `invalid-argument` when it is no ipc or tcp endpoint, or one beyond this machine without keys.
    """
    asked = isinstance(endpoint, str) and endpoint == "auto"
    wanted = env.get("GRADWATCH_ENDPOINT", "") if asked else endpoint
    if not isinstance(wanted, str) or (wanted and not ENDPOINT.fullmatch(wanted)):
        raise GradwatchError(
            "invalid-argument",
            where="endpoint",
            expected="auto, ipc://PATH or tcp://HOST:PORT",
            got=repr(wanted)[:80],
            next_step=f"{'Unset GRADWATCH_ENDPOINT' if asked else 'Leave it out'}: then the daemon of this user is looked for.",
        )
    _check_readers(wanted)
    if wanted.startswith("ipc:"):
        return wanted, ""
    owner = os.getuid() if uid is None else uid
    directory = runtime_dir(env, owner)
    found = _read_connection(directory, owner)
    if found is not None and found.secret and is_abandoned(directory):
        return wanted or f"ipc://{directory}/ingest.ipc", ""
    if not wanted:
        return (found.ingest, found.secret) if found else (TCP_DEFAULT, "")
    return wanted, found.secret if found and found.ingest == wanted else ""


class Locator:
    """Says where the daemon is now, as `resolve_endpoint`, whenever `connection.json` was written anew; else None.

    Only `auto` moves: an endpoint that was given holds. Looks at the file's times first, so that a directory that is
    not believed is warned of once and not every second.
    """

    def __init__(self, endpoint: str, env: Mapping[str, str]) -> None:
        self._endpoint, self._env = endpoint, dict(env)
        self._directory = runtime_dir(env, os.getuid())
        self._path = f"{self._directory}/{FILE_NAME}"
        self._seen = self._written()

    def gone(self) -> bool:
        """Whether the daemon of this user is known to be gone: its secret is then told to nobody."""
        return is_abandoned(self._directory)

    def again(self) -> Locator:
        """Another one of the same, for another connection."""
        return Locator(self._endpoint, self._env)

    def __call__(self) -> tuple[str, str] | None:
        """Where it is, or None when nothing has changed or nothing is to be believed."""
        written = self._written()
        if written == self._seen or self._endpoint != "auto" or self._env.get("GRADWATCH_ENDPOINT"):
            return None
        self._seen = written
        return None if written is None else resolve_endpoint(self._endpoint, self._env)

    def _written(self) -> tuple[int, int] | None:
        try:
            facts = os.stat(self._path)
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_ino


def _read_connection(directory: str, uid: int) -> Connection | None:
    """What the daemon of this user wrote, None when there is nothing to be believed."""
    path = f"{directory}/{FILE_NAME}"
    try:
        _check_private(directory, os.stat(directory), uid)
        # NONBLOCK: a FIFO planted here must not hang the trainer.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            facts = os.fstat(fd)
            _check_private(path, facts, uid)
            if not stat.S_ISREG(facts.st_mode):
                raise GradwatchError("config-invalid", where=path, expected="a regular file")
            found = Connection.from_json(file.read(CONNECTION_BYTES_MAX).decode("utf-8", "replace"))
        if not ENDPOINT.fullmatch(found.ingest):
            raise GradwatchError("config-invalid", where=path, expected="an ipc or tcp endpoint", got=found.ingest[:80])
        _check_readers(found.ingest)
    except FileNotFoundError:
        return None
    except (OSError, GradwatchError) as error:
        LOGGER.warning("gradwatch does not use %s: %s", path, error)
        return None
    return found


def _check_readers(endpoint: str) -> None:
    """Refuse keys that are not whole, and to speak in clear where others can listen."""
    address, keys = read_endpoint(endpoint)
    if address.startswith("tcp:") and keys is None and not LOOPBACK.fullmatch(address):
        raise GradwatchError(
            "invalid-argument",
            where=f"endpoint {address[:80]}",
            expected="keys, since it leaves this machine: tcp://HOST:PORT?server=KEY&public=KEY&secret=KEY",
            got="none",
            next_step="Run `gradwatch keys add NAME` beside the daemon and copy the whole line it prints, in quotes.",
        )


def is_abandoned(directory: str) -> bool:
    """Whether the daemon of a runtime directory is known to be gone: its lock is there and nobody holds it. False where that
    cannot be known."""
    try:
        lock = os.open(f"{directory}/{LOCK_FILE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _check_private(path: str, facts: os.stat_result, uid: int) -> None:
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid != uid or mode & 0o077:
        raise GradwatchError(
            "config-invalid",
            where=path,
            expected=f"owned by user {uid} and closed to others",
            got=f"owner {facts.st_uid}, mode {mode:04o}",
            next_step="Remove it, or set GRADWATCH_RUNTIME_DIR to a directory of yours with mode 0700.",
        )


class Disabled(Protocol):
    """Something that must become inert in a forked child."""

    def disable(self) -> None: ...


def disable_in_child(part: Disabled) -> None:
    """Call `part.disable()` in every child forked from now on, as long as `part` lives.

    Only a weak reference is kept: Python offers no way to take a fork hook back.
    """
    reference = weakref.ref(part)

    def after_fork() -> None:
        alive = reference()
        if alive is not None:
            alive.disable()

    os.register_at_fork(after_in_child=after_fork)
