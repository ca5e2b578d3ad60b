"""A whole stored run replayed, and what a clean result of it would be worth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.anomalies.closing import ANOTHER_ATTEMPT, close
from gradwatch_daemon.records.replayed import Replayed, StreamReplay
from gradwatch_daemon.replay.compare import compare
from gradwatch_daemon.replay.stream import EVERYTHING, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gradwatch_daemon.detect.catalogue import Profile
    from gradwatch_daemon.records import SignalBlock, Stream
    from gradwatch_daemon.records.replayed import Window
    from gradwatch_daemon.store.recording import RecordedStream, Recording


def replay_run(
    recording: Recording,
    blocks: Callable[[RecordedStream], Iterator[SignalBlock]],
    profile: Profile,
    *,
    window: Window = EVERYTHING,
    unknown: Sequence[str] = (),
    clock: Callable[[], float],
) -> Replayed:
    """Every attempt and rank of a run under one profile. `blocks` reads the rows of a stream; `unknown` are names of signals
    that were left out; `clock` gives seconds."""
    began = clock()
    streams = tuple(_replay_stream(recording, recorded, blocks, profile, window) for recorded in recording.streams)
    lost = recording.lost
    return Replayed(
        recording.run.run,
        profile.name,
        profile.rules_hash,
        streams,
        lost,
        tuple(_inconclusive(recording, streams, lost)),
        tuple(_notes(recording, streams, window, unknown)),
        clock() - began,
        received=recording.received,
        thinned=recording.thinned,
    )


def _replay_stream(
    recording: Recording,
    recorded: RecordedStream,
    blocks: Callable[[RecordedStream], Iterator[SignalBlock]],
    profile: Profile,
    window: Window,
) -> StreamReplay:
    found = replay(
        recorded.stream,
        blocks(recorded),
        profile,
        marks=recorded.marks,
        updates_total=recording.run.updates_total,
        first_row=recorded.first_row,
        window=window,
    )
    if recorded.stream.attempt >= recording.run.attempt:
        return found
    return replace(found, anomalies=tuple(close(anomaly, ANOTHER_ATTEMPT) for anomaly in found.anomalies))


def compare_with_live(replayed: Replayed, recording: Recording, window: Window = EVERYTHING) -> Replayed:
    """The replay beside what live found in the same updates."""
    first, last = window.first, window.last
    live = [
        anomaly
        for anomaly in recording.anomalies
        if (first is None or anomaly.update_fired >= first) and (last is None or anomaly.update_fired <= last)
    ]
    other = sorted({anomaly.rules_hash for anomaly in live} - {replayed.rules_hash})
    note = f"the live record was made under other rules ({', '.join(other)}; these are {replayed.rules_hash})"
    difference = compare("live", live, replayed.anomalies)
    return replace(replayed, difference=difference, notes=(*replayed.notes, note) if other else replayed.notes)


def compare_profiles(replayed: Replayed, other: Replayed) -> Replayed:
    """The replay beside another one of the same run."""
    return replace(replayed, difference=compare(other.profile, other.anomalies, replayed.anomalies))


def check_size(recording: Recording, rows_max: int) -> None:
    """Refuse a run with more rows than that.

    Raises:
        GradwatchError: `replay-too-large`.
    """
    rows = sum(recorded.end_row - recorded.first_row for recorded in recording.streams)
    if rows > rows_max:
        raise GradwatchError(
            "replay-too-large", where=recording.run.run, expected=f"at most {rows_max} stored updates", got=str(rows)
        )


def _inconclusive(recording: Recording, streams: Sequence[StreamReplay], lost: int) -> Iterator[str]:
    """Why finding nothing would prove nothing, but for detectors that cannot see: those speak for themselves."""
    if not any(stream.rows for stream in streams):
        yield "there are no rows to replay"
    if lost:
        yield f"{lost} records were lost"
    for recorded, stream in zip(recording.streams, streams, strict=True):
        name = _name(stream.stream)
        if recorded.first_row:
            yield f"{name}: its first {recorded.first_row} rows are no longer stored; live learned from them, a replay cannot"
        if stream.trouble:
            yield f"{name} cannot be read beyond row {stream.unseen + stream.rows}: {stream.trouble}"
        if stream.missing:
            yield f"{name} has {stream.missing} updates less than its numbers say"


def _notes(recording: Recording, streams: Sequence[StreamReplay], window: Window, unknown: Sequence[str]) -> Iterator[str]:
    for recorded, stream in zip(recording.streams, streams, strict=True):
        name = _name(stream.stream)
        if stream.rows and stream.unseen > recorded.first_row:
            yield f"{name}: {stream.unseen} rows before update {stream.update_first} were not replayed, nor learned from"
        if stream.backward:
            yield f"{name}: {stream.backward} updates were not after the one before: repeated, out of order or gone back"
    if unknown:
        yield f"signals this version does not know were left out: {', '.join(unknown[:10])}"
    if recording.run.attempt > 1 and recording.run.updates_total is not None:
        yield f"updates_total {recording.run.updates_total} is of the newest attempt, and was taken for all"
    if window and any(stream.rows for stream in streams):
        yield "only a part of the run was asked for"


def _name(stream: Stream) -> str:
    rank = stream.rank_shown
    return f"attempt {stream.attempt}, all ranks" if rank is None else f"attempt {stream.attempt} rank {rank}"
