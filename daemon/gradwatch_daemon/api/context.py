"""Everything the API is given: snapshots, a reader, a mailbox, a fan-out. It has no other way to the daemon."""

import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fastapi import Request as HttpRequest

from gradwatch_contracts.control import Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api.access import KeyBook, TokenBook
from gradwatch_daemon.api.hub import Hub
from gradwatch_daemon.api.kept import Kept
from gradwatch_daemon.records import RunView
from gradwatch_daemon.records.exported import Exported, ExportOrder
from gradwatch_daemon.records.notices import ChannelView, Tried
from gradwatch_daemon.records.replayed import ReplayOrder
from gradwatch_daemon.store.protocol import StoreReader

if TYPE_CHECKING:
    from concurrent.futures import Future

    from gradwatch_daemon.records.attention import AttentionRequest
    from gradwatch_daemon.records.commands import ControlRequest


@dataclass(frozen=True, slots=True)
class ThresholdInfo:
    """One number a detector compares with: in force, as the profile has it, and how it is compared.

    `signal` is the one whose own value is compared, '' where it is a measure against the past or no signal at all.
    `severity` is that of a breach on its own, None for a part of a conjunction.
    """

    name: str
    value: float
    default: float
    comparison: str
    unit: str
    meaning: str
    signal: str = ""
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class NeedInfo:
    """A signal a detector reads, the agent call that feeds it, and the line to add to the trainer.

    Without an `optional` one the detector still judges. `undefined` is what to do where it is sent but not defined.
    """

    signal: str
    call: str
    line: str
    optional: bool = False
    undefined: str = ""


@dataclass(frozen=True, slots=True)
class VoteInfo:
    """`k` of the last `n` updates breached at severity `at` or worse: then it fires with severity `gives`."""

    at: Severity
    k: int
    n: int
    gives: Severity


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """One entry of the catalogue, as plain as HTTP shows it. Built by the app from the detectors' specs."""

    kind: str
    title: str
    meaning: str
    severity: Severity
    needs: tuple[NeedInfo, ...]
    thresholds: tuple[ThresholdInfo, ...]
    votes: tuple[VoteInfo, ...]
    formula: str
    warm_up: str
    fails_when: str
    source: str
    tries: tuple[str, ...]
    origin: str = "gradwatch"


@dataclass(frozen=True, slots=True)
class BrokenDetector:
    """A detector of another package that could not be loaded."""

    name: str
    origin: str
    reason: str


@dataclass(frozen=True, slots=True)
class ActionInfo:
    """Something the daemon asks trainers for by itself: when, in words, and whether it may."""

    verb: str
    when: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class DaemonHealth:
    """What the daemon knows of itself at one moment: clocks in unix ns, its disk in bytes, and counts since it started."""

    pid: int
    started_ns: int
    now_ns: int
    sqlite: str
    data_dir: str
    data_free_bytes: int
    data_size_bytes: int
    frames: int
    rows: int
    refused: Mapping[str, int]
    quarantines: int
    commits: int
    commit_failures: int
    ack: Literal["committed", "synced"] = "committed"


def make_id() -> str:
    """A new escalation id: 64 random bits."""
    return secrets.token_hex(8)


class Channels(Protocol):
    """Who is told of anomalies, and a way to try it."""

    @property
    def channels(self) -> Sequence[ChannelView]:
        """As they are configured."""

    def test(self, name: str | None) -> Sequence[Tried]:
        """Send a test and say what came back; blocks. `channel-not-found` for an unknown name."""


class NoChannels:
    """Stands where nobody is to be told."""

    channels: Sequence[ChannelView] = ()

    def test(self, name: str | None) -> Sequence[Tried]:
        """Nobody to try.

        Raises:
            GradwatchError: `channel-not-found` for any name.
        """
        if name is not None:
            raise GradwatchError("channel-not-found", where="channel", expected="no channel at all", got=repr(name[:80]))
        return ()


NO_CHANNELS = NoChannels()


class AuditLog(Protocol):
    """Where every request that changes something is written down."""

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry; OSError when the disk takes no more."""

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """The last entries, newest first."""


async def refuse_replay(order: ReplayOrder) -> dict[str, Any]:
    """Stands where no replay was wired.

    Raises:
        GradwatchError: `not-ready`, always.
    """
    raise GradwatchError("not-ready", where="replay", expected="a daemon that replays", got=f"none for {order.run}")


async def refuse_export(order: ExportOrder) -> Exported:
    """Stands where no export was wired.

    Raises:
        GradwatchError: `not-ready`, always.
    """
    raise GradwatchError("not-ready", where="export", expected="a daemon that exports", got=f"none for {order.what}")


def find_none(run: str, id_: str) -> Path | None:
    """Stands where no files are kept."""
    return None


@dataclass(frozen=True, slots=True)
class Keyring:
    """What agents of other machines need: the registered keys, a way to make a pair, and the address and key of the daemon."""

    book: KeyBook
    make_pair: Callable[[], tuple[str, str]]
    address: str
    server: str


@dataclass(frozen=True, slots=True)
class ApiContext:
    """What `create_api` needs.

    `snapshots` returns the newest immutable view of every known run, live or not. `submit` hands a request to the
    pipeline thread; its future gives the committed record or raises GradwatchError. `ready` lists why the daemon is
    not ready, empty when it is; /readyz shows these words without asking for a token. `health` looks at the disk, so it
    is called in a worker thread. `allowed_hosts` are names or addresses without brackets; one with a port (`name:port`,
    `[v6]:port`) matches that port only. `replay` gives the document of a
    replay, `export` a new file. `keyring` is None where ingest does not leave this machine.
    """

    snapshots: Callable[[], Mapping[str, RunView]]
    reader: StoreReader
    submit: "Callable[[ControlRequest | AttentionRequest], Future[Any]]"
    hub: Hub
    book: TokenBook
    audit: AuditLog
    keyring: Keyring | None
    allowed_hosts: Collection[str]
    ready: Callable[[], Sequence[str]]
    health: Callable[[], DaemonHealth]
    catalogue: Sequence[DetectorInfo]
    version: str
    profile: str = "default"
    broken: Sequence[BrokenDetector] = ()
    actions: Sequence[ActionInfo] = ()
    artifact: Callable[[str, str], Path | None] = find_none  # the file of a command, by run and id
    replay: Callable[[ReplayOrder], Awaitable[dict[str, Any]]] = refuse_replay
    export: Callable[[ExportOrder], Awaitable[Exported]] = refuse_export
    notifier: Channels = NO_CHANNELS
    public_url: str = ""  # what links lead to, '' for the address that was asked
    new_id: Callable[[], str] = make_id
    submit_timeout_s: float = 10.0
    kept: Kept = field(default_factory=Kept)


def context_of(request: HttpRequest) -> ApiContext:
    """The context of the application that serves this request."""
    context = request.app.state.context
    if not isinstance(context, ApiContext):
        raise TypeError("the application was not made by create_api")
    return context
