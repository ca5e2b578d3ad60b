"""What the pipeline and the API need of a store. One writer (the pipeline thread), many readers (HTTP).

Every implementation passes the one conformance suite, tests/unit/daemon/test_store_{rows,records,series,retention}.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gradwatch_daemon.records import (
        F64,
        I64,
        U8,
        Anomaly,
        Checkpoint,
        Commit,
        Escalation,
        EventRecord,
        LossRecord,
        Run,
        Session,
        SignalBlock,
        SignalKey,
        Stream,
        TableRecord,
    )
    from gradwatch_daemon.records.attention import Attention, Silence
    from gradwatch_daemon.records.commands import CommandRecord
    from gradwatch_daemon.records.notices import Delivery


@dataclass(frozen=True, slots=True)
class SignalSummary:
    """A signal that a run has: its last measured value (f64), the update it is from, and counts over all updates.

    `status_last` is the status of the newest row; `value_last` is None when never measured, and `update_last` then that
    of the newest row.
    """

    key: SignalKey
    update_last: int
    status_last: int
    value_last: float | None
    measured: int
    nonfinite: int


@dataclass(frozen=True, slots=True)
class Point:
    """One stored row of a signal as it is; `value` is NaN where `status` says that nothing was measured."""

    update: int
    t_ns: int
    env_steps: int
    value: float
    status: int


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One signal over updates in order of arrival: raw points (`bucket` 1) or buckets of up to `bucket` rows.

    `bucket` is a power of two; buckets are aligned to the stream's rows, so they stay where they are as a run grows, and
    the first and last of a range may be shorter. Arrays over points or buckets: `update`, `t_ns`, `env_steps` of the
    first row of each; `low`, `high`, `last` f64: extremes of the finite values (NaN where there is none) and the last
    measured value as it is (NaN where there is none); a raw point has its value in all three, as it is. `measured`
    counts, `nonfinite` how many of them were not finite; `status` the highest where nothing was measured, else 0.
    `rows` counts the stored rows in the range; `unmeasured` those of them without a value, by status. Of `thinned` of them
    only roll-ups of 64 are left, which reach up to 63 rows out of the range; where there are any, `bucket` is 64 or more.
    `end` is the last row of the range as it is, None where there is none or it was thinned: a bucket says where it begins, and
    the newest row is what people ask for.
    """

    key: SignalKey
    bucket: int
    update: I64
    t_ns: I64
    env_steps: I64
    low: F64
    high: F64
    last: F64
    measured: I64
    nonfinite: I64
    status: U8
    rows: int
    unmeasured: Mapping[int, int] = field(default_factory=dict)
    end: Point | None = None
    thinned: int = 0


@dataclass(frozen=True, slots=True)
class Keep:
    """How long rows stay as they came before only their roll-ups are left; None for no bound.

    `age_ns` since they were made, or since their run was first heard of, whichever is later. `bytes_max` of the whole store.
    """

    age_ns: int | None = None
    bytes_max: int | None = None

    def __bool__(self) -> bool:
        return self.age_ns is not None or self.bytes_max is not None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of a stream, in order of arrival, at one level and with no update between them that is not there.

    The next stretch begins where the level changes, updates are missing, or the trainer went back to an earlier one.
    """

    update_first: int
    update_last: int
    first_ns: int
    last_ns: int
    level: int


@dataclass(frozen=True, slots=True)
class AnomalyFilter:
    """Which anomalies; None means any. `kind` is that of the root or of a finding attached to it; `among` are runs of which it
    must be one, `apart` those of which it must be none. `cursor` is (fired t_ns, id) of the last one seen; newest first."""

    run: str | None = None
    kind: str | None = None
    severity: str | None = None
    state: str | None = None
    since_ns: int | None = None
    limit: int = 50
    cursor: tuple[int, str] | None = None
    among: tuple[str, ...] | None = None
    apart: tuple[str, ...] | None = None


class StoreReader(Protocol):
    """Read-only; safe to call from any thread; sees committed data only."""

    def signals(self, run: str, attempt: int, rank: int) -> list[SignalSummary]:
        """Every signal of a stream; empty for an unknown one."""

    def series(self, stream: Stream, key: SignalKey, first: int | None, last: int | None, points: int) -> Series:
        """A signal over updates `first` to `last` (both included, None for no bound) in at most `points` points.

        Raw when the range has no more rows than that. An unknown stream or signal gives an empty series.
        """

    def anomalies(self, wanted: AnomalyFilter) -> list[Anomaly]:
        """Anomalies that match, newest first by (t_ns, id)."""

    def anomaly(self, id_: str) -> Anomaly | None: ...

    def escalations(self, run: str) -> list[Escalation]:
        """All escalations of a run, newest first."""

    def attention(self, anomalies: Sequence[str]) -> dict[str, Attention]:
        """What people did about the anomalies with these ids; those nobody looked at are left out."""

    def silences(self) -> list[Silence]:
        """All silences, active or over, newest first."""

    def escalation(self, run: str, id_: str) -> Escalation | None: ...

    def commands(self, run: str) -> list[CommandRecord]:
        """All commands of a run, newest first."""

    def command(self, run: str, id_: str) -> CommandRecord | None: ...

    def shadows(self, run: str) -> dict[str, int]:
        """How often each verb would have been asked for in a run, by actions that are not enabled."""

    def delivery_counts(self) -> dict[tuple[str, str], int]:
        """How many deliveries are kept, by channel and state."""

    def deliveries(self) -> list[Delivery]:
        """What people were told and are to be told, newest first."""

    def events(self, run: str, limit: int) -> list[EventRecord]:
        """The newest events of a run in any attempt and rank, newest first."""

    def losses(self, run: str) -> list[LossRecord]:
        """All losses of a run, oldest first."""

    def tables(self, run: str, limit: int) -> list[TableRecord]:
        """The newest tables of a run, newest first."""

    def table_updates(self, stream: Stream, kind: str) -> list[int]:
        """The updates of a stream that have a table of a kind, ascending, each once."""

    def tables_at(self, stream: Stream, kind: str, updates: Sequence[int]) -> list[TableRecord]:
        """The tables of a kind of these updates, by update; of several of one update that which came last."""

    def tables_between(self, stream: Stream, kind: str, first: int, last: int, limit: int) -> list[TableRecord]:
        """The last `limit` tables of a kind and of updates `first` to `last`, both included, in order of arrival."""

    def blocks_between(self, stream: Stream, first: int, last: int, limit: int) -> list[SignalBlock]:
        """Stored rows of updates `first` to `last`, both included, in order of arrival; the last `limit` of them. Rows that
        were thinned are not among them."""

    def stretches(self, stream: Stream) -> list[Stretch]:
        """All rows of a stream, thinned ones too, as stretches, in order of arrival; empty for an unknown one."""

    def close(self) -> None: ...


class Store(Protocol):
    """The writing side. Used by one thread."""

    def commit(self, batch: Commit) -> None:
        """Write the whole batch in one transaction, or nothing.

        A checkpoint covers every row of its stream up to and including this batch. Events and tables with a seq of 0 or
        more, and losses, are kept once by (session, seq); seq -1 is for records the daemon makes itself.

        Raises:
            GradwatchError: `data-dir-unusable`: nothing was written; the same batch may be tried again.
        """

    def compact(self) -> int:
        """Turn full tails into chunks and roll-ups, a bounded number; returns how many. Called between commits, after acks.

        Cheap when there is nothing to do. This is also where the write-ahead log is emptied.
        """

    def thin(self, keep: Keep, now_ns: int) -> Mapping[Stream, int]:
        """Leave of whole chunks that `keep` does not cover their roll-ups of 64 rows, a bounded number of chunks, oldest
        first; rows thinned by stream, empty when there is nothing to do.

        The tables of their updates go before them, but for those near an anomaly, and of updates that a row still has. Of them
        too a bounded number: a stream with 0 rows has more.

        By age, chunks near an anomaly stay; by size they go last. Rows that no checkpoint covers yet, and those behind the
        last whole chunk, always stay.

        Raises:
            GradwatchError: `data-dir-unusable`, as `commit`; nothing was thinned.
        """

    def thinned(self) -> Mapping[Stream, int]:
        """Rows of each stream of which only roll-ups are left, over those that have any."""

    def raw_begin(self, stream: Stream) -> int:
        """How many rows of a stream come before those from which on none was thinned."""

    def size_bytes(self) -> int:
        """What the store takes now: what thinning by size goes by."""

    def runs(self) -> Sequence[Run]:
        """All runs, in order of their names."""

    def session(self, id_: str) -> Session | None:
        """What is recorded of one process; None for one that never greeted."""

    def open_anomalies(self) -> Sequence[Anomaly]:
        """Pending and firing ones, oldest first."""

    def anomaly(self, id_: str) -> Anomaly | None: ...

    def attention(self, anomalies: Sequence[str]) -> Mapping[str, Attention]:
        """What people did about the anomalies with these ids; those nobody looked at are left out."""

    def silences(self) -> Sequence[Silence]:
        """All silences, active or over, newest first."""

    def silence(self, id_: str) -> Silence | None: ...

    def deliveries(self) -> Sequence[Delivery]:
        """What people were told and are to be told, newest first; of those that are over, the newest."""

    def open_escalations(self) -> Sequence[Escalation]:
        """Those that anything may still become of, oldest first."""

    def escalation(self, run: str, id_: str) -> Escalation | None: ...

    def open_commands(self) -> Sequence[CommandRecord]:
        """Those that anything may still become of, oldest first."""

    def command(self, run: str, id_: str) -> CommandRecord | None: ...

    def checkpoint(self, stream: Stream) -> Checkpoint | None:
        """The newest checkpoint of a stream."""

    def blocks_after(self, stream: Stream, update: int) -> Iterator[SignalBlock]:
        """Stored rows of a stream after an update, in order of arrival, exactly as they were detected on: those from
        `raw_begin` on, so that none is missing in between."""

    def blocks_since_checkpoint(self, stream: Stream) -> Iterator[SignalBlock]:
        """Rows that arrived after those the newest checkpoint covers, whatever their updates; all where there is none."""

    def marks(self, stream: Stream) -> Sequence[EventRecord]:
        """The events that detection made of a stream (kinds `gap` and `tick`, seq -1), oldest first."""

    def pauses(self) -> Sequence[EventRecord]:
        """The events of kind `phase` of all runs, oldest first."""

    def waiting(self) -> Sequence[tuple[Stream, bytes]]:
        """The rows of ranks that are not combined yet, by the stream of the combined ones."""

    def row_counts(self) -> dict[Stream, tuple[int, int]]:
        """Rows and the largest update (or -1) of each stream."""

    def lost_count(self, run: str) -> int:
        """Records of a run covered by a LOSS, each counted once."""

    def reader(self) -> StoreReader: ...

    def close(self) -> None: ...
