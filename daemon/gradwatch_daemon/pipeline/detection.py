"""From the rows and losses of a tick to findings: derive, combine the ranks of a run, detect, raise the level where asked.

Where a run has several ranks each rank's rows are stored as they came, and detection runs on the combined ones.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts.columns import RowFlag
from gradwatch_contracts.control import Level
from gradwatch_daemon.derive.derive import Deriver
from gradwatch_daemon.derive.gathering import Gathering
from gradwatch_daemon.escalate.policy import Policy
from gradwatch_daemon.ingest.gate import join_rows
from gradwatch_daemon.pipeline.stream import StreamDetection
from gradwatch_daemon.records import ALL_RANKS, EventRecord, LossRecord, Newest, Stream
from gradwatch_daemon.records.commands import ANOMALY_ORIGIN

if TYPE_CHECKING:
    from gradwatch_contracts.messages import Scalar
    from gradwatch_daemon.detect.engine import Engine
    from gradwatch_daemon.ingest.gate import Passed
    from gradwatch_daemon.ingest.session import Sessions
    from gradwatch_daemon.pipeline.pace import Pace
    from gradwatch_daemon.pipeline.runs import Runs, RunState
    from gradwatch_daemon.pipeline.work import Gap, Now, Work
    from gradwatch_daemon.records import Anomaly, DetectorState, RowBlock, SignalBlock
    from gradwatch_daemon.store.protocol import Store

LOG = logging.getLogger("gradwatch.daemon")

PACE_LEAST_S = 1.0
"""Time without an update below which nobody asks whether that is long."""

BROUGHT_BACK_MAX = 8
"""Streams without a new row whose detectors are brought back in one tick, 10 ms each: after a restart hundreds greet at once,
and their WELCOME waits for the end of the tick."""

ANSWERS_S = 1.5 * limits.HEARTBEAT_S
"""A trainer heard of within this time lives; one that does not answer is lost, which is not a stall."""


TOGETHER = "all ranks are in the combined update again, and agree"

SLOW_AGAIN_UPDATES = 64
"""Updates between two events that a rank is slow."""


class Detection:
    """The detectors of all streams that are fed, and the rows of ranks that wait for each other."""

    def __init__(
        self, engine: Engine, store: Store, runs: Runs, sessions: Sessions, pace: Pace, *, policy: Policy | None = None
    ) -> None:
        self._engine, self._store, self._policy = engine, store, policy or Policy()
        self._runs, self._sessions, self._pace = runs, sessions, pace
        self._deriver = Deriver()
        self._streams: dict[Stream, StreamDetection] = {}
        self._gathered: dict[Stream, Gathering] = {}
        self._apart: dict[Stream, int] = {}
        self._slow_told: dict[Stream, int] = {}
        self._late_told: dict[Stream, int] = {}

    @property
    def rules_hash(self) -> str:
        """Of the rules in force."""
        return self._engine.profile.rules_hash

    def standing(self, stream: Stream) -> tuple[DetectorState, ...]:
        """How the detectors of a stored stream stand; replays what its checkpoint does not cover."""
        return self._of(stream).detector_states

    def rhythm(self, stream: Stream) -> tuple[float | None, float]:
        """The usual time between updates of a stream, and that after which it stands still; (None, 0.0) while learning, and
        where nothing was judged since this daemon began: everybody waits while one is brought back."""
        known = self._streams.get(stream)
        return (None, 0.0) if known is None else known.rhythm_s

    def same_update(self, state: RunState) -> int:
        """The update from which on all ranks of a run can do something alike, by its own rhythm; 0 for a single rank."""
        return state.same_update(self.rhythm(state.judged(Stream(state.run.run, state.run.attempt, 0)))[0])

    def restore(self) -> None:
        """Begin anew with what is stored: rows of ranks that wait; detectors come back with their stream's next row."""
        self._streams.clear()
        for stream, data in self._store.waiting():
            try:
                self._gathered[stream] = Gathering.load(stream.run, stream.attempt, data)
                self._late_told[stream] = self._gathered[stream].late
            except (ValueError, TypeError, KeyError) as error:
                LOG.error("rows of ranks of %s that waited for others are not read: %s", stream.run, error)

    def detect(self, passed: Passed, work: Work, now: Now) -> None:
        """Take in the rows and losses of a tick."""
        gaps: dict[Stream, deque[Gap]] = {}
        for gap in work.gaps:
            gaps.setdefault(gap.loss.stream, deque()).append(gap)
        seen: dict[Stream, int] = {}
        joined = join_rows(passed.rows)
        for rows, block in zip(joined, self._derive_all(joined), strict=True):
            state = self._runs.states[rows.stream.run]
            before = seen.get(rows.stream, 0)
            seen[rows.stream] = before + len(rows.update)
            if block is None:
                # Counted with the other losses of this tick, by the pipeline.
                passed.losses.append(LossRecord(rows.stream, rows.session, *rows.seqs, "the daemon failed on them"))
                work.place_losses(passed)
                self._lose(work.gaps[-1].loss, work, now)
                continue
            work.blocks.append(block)
            work.changed.add(rows.stream.run)
            state.rows += len(block)
            if rows.stream.attempt == state.run.attempt:
                state.update_last = max(state.update_last or 0, int(block.update.max()))
                state.effective = Level(int(block.level[-1]))
                state.run = replace(state.run, last_seen_ns=now.unix_ns)
            stream = state.judged(rows.stream)
            if stream == rows.stream:
                self._judge(block, work, now, before=before, gaps=gaps.get(rows.stream, deque()))
            else:
                self._gathering(stream, state).put(rows)
        self._combine(passed, work, now)
        for of_stream in gaps.values():
            for gap in of_stream:
                self._lose(gap.loss, work, now)
        # After all blocks of a stream: a checkpoint covers everything that its transaction writes.
        for stream in {block.stream for block in work.blocks} & self._streams.keys():
            checkpoint = self._streams[stream].checkpoint_if_due()
            if checkpoint is not None:
                work.checkpoints.append(checkpoint)

    def _gathering(self, stream: Stream, state: RunState) -> Gathering:
        if stream not in self._gathered:
            self._gathered[stream] = Gathering(stream.run, stream.attempt, state.run.world)
        return self._gathered[stream]

    def _combine(self, passed: Passed, work: Work, now: Now) -> None:
        """Detect on what is complete over ranks, or will not become more complete."""
        gone = {session.stream for session, _ in passed.byes} | {s.stream for s in self._sessions.silent(now.mono_s)}
        sent = {rows.stream for rows in passed.rows}
        touched = {stream._replace(rank=ALL_RANKS) for stream in gone | sent}
        for stream in sorted(touched & self._gathered.keys()):
            gathering = self._gathered[stream]
            for leaving in gone:
                if leaving._replace(rank=ALL_RANKS) == stream:
                    gathering.leave(leaving.rank)
            failed = gathering.failed
            taken = gathering.take()
            if gathering.failed > failed:
                LOG.error("%d updates of %s cannot be combined over ranks; their rows are kept", gathering.failed, stream.run)
            for rows in taken:
                block = self._derive(rows)
                if block is not None:
                    work.blocks.append(block)
                    self._judge(block, work, now)
                    self._tell_ranks(block, gathering, work)
            self._tell_late(stream, gathering, work, now)
            work.waiting[stream] = gathering.dump()

    def _tell_ranks(self, block: SignalBlock, gathering: Gathering, work: Work) -> None:
        """An event wherever ranks begin to be missing or to differ, where they are together again, and where one is slow; the
        detectors of ranks judge the flags, these say which rank and what."""
        stream = block.stream
        for update, t_ns, flags in zip(block.update.tolist(), block.t_ns.tolist(), block.flags.tolist(), strict=True):
            now, before = flags & (RowFlag.RANKS_MISSING | RowFlag.RANKS_DIFFER), self._apart.get(stream, 0)
            slow = flags & RowFlag.RANK_SLOW and update - self._slow_told.get(stream, -SLOW_AGAIN_UPDATES) >= SLOW_AGAIN_UPDATES
            if now == before and not slow:
                continue
            if slow:
                self._slow_told[stream] = update
            self._apart[stream] = now
            text = gathering.apart.get(update, TOGETHER)
            work.events.append(EventRecord(stream, "", -1, update, t_ns, "ranks", text, {}))

    def _tell_late(self, stream: Stream, gathering: Gathering, work: Work, now: Now) -> None:
        """An event where rows came after their update was combined: the first time, and whenever their number has doubled."""
        told = self._late_told.get(stream, 0)
        if gathering.late >= max(1, 2 * told):
            self._late_told[stream] = gathering.late
            text = f"{gathering.late} rows of ranks came after their update was combined: stored, and in no combined value"
            detail: dict[str, Scalar] = {"late": gathering.late}
            update = self._runs.states[stream.run].update_last or 0
            work.events.append(EventRecord(stream, "", -1, update, now.unix_ns, "ranks", text, detail))

    def _judge(self, block: SignalBlock, work: Work, now: Now, *, before: int = 0, gaps: deque[Gap] | None = None) -> None:
        """Detect on a block, and on the losses within it where they happened; `before` rows of this tick are done."""
        stream, state = block.stream, self._runs.states[block.stream.run]
        detection, done = self._of(stream), 0
        while gaps and gaps[0].rows_before - before < len(block):
            gap = gaps.popleft()
            until = gap.rows_before - before
            if until > done:
                self._found(detection.advance(block.select(slice(done, until))), work, now)
                done = until
            self._lose(gap.loss, work, now)
        self._found(detection.advance(block.select(slice(done, len(block))) if done else block), work, now)
        self._pace.move(stream, now)
        if stream.attempt == state.run.attempt:
            state.detectors = detection.detector_states
            if state.allowance is not None:  # a rule has asked for something in this attempt
                self._tell_allowance(state)
            state.newest = Newest.of(block, now.unix_ns)

    def _lose(self, loss: LossRecord, work: Work, now: Now) -> None:
        detection = self._of(self._runs.states[loss.stream.run].judged(loss.stream))
        anomalies, mark = detection.lose(loss, now.unix_ns)
        work.events.append(mark)
        self._found(anomalies, work, now)

    def tell_outage(self, stream: Stream, seconds: float, work: Work, now: Now) -> None:
        """Judge that nothing was acked for a while: a gap in time and in no record, as `telemetry_gap`."""
        self._lose(LossRecord(stream, "", 0, -1, f"no acks for {seconds:.1f} s: store unwritable; no record lost"), work, now)

    def watch_pace(self, work: Work, now: Now) -> None:
        """Tell detection when a trainer that answers has not ended an update for too long, and is in no pause."""
        brought_back = 0
        for session in self._sessions.by_id.values():
            state = self._runs.states[session.stream.run]
            stream = state.judged(session.stream)
            waited_s, _ = self._pace.waited(stream, now)
            answers = now.mono_s - session.heard_s <= ANSWERS_S
            past = session.hello.replay or stream.attempt != state.run.attempt
            if waited_s < PACE_LEAST_S or not answers or past or self._pace.excused(stream, now):
                continue
            if stream not in self._streams:
                brought_back += 1
                if brought_back > BROUGHT_BACK_MAX:
                    continue
            detection = self._of(stream)
            told = detection.tick(int(waited_s * 1e9))
            if told is not None:
                work.events.append(told[1])
                self._found(told[0], work, now)
                state.detectors = detection.detector_states

    def retire(self, work: Work) -> None:
        """Detection of runs that nobody feeds is put away; checkpoint and rows bring it back."""
        idle = {run for run in work.changed if not self._runs.states[run].live}
        for stream in [stream for stream in self._streams if stream.run in idle]:
            del self._streams[stream]
            self._pace.forget(stream)
        for stream in [stream for stream in self._gathered if stream.run in idle and not self._gathered[stream].waiting]:
            del self._gathered[stream]
            for told in (self._apart, self._slow_told, self._late_told):
                told.pop(stream, None)
            work.waiting[stream] = b""

    def _found(self, anomalies: list[Anomaly], work: Work, now: Now) -> None:
        """Note what detection changed, and raise the level where that asks for it."""
        for anomaly in anomalies:
            state = self._runs.states[anomaly.run]
            if anomaly.attempt == state.run.attempt:
                state.remember([anomaly])
            work.noted([anomaly])
            self._escalate(anomaly, state, work, now)

    def _escalate(self, anomaly: Anomaly, state: RunState, work: Work, now: Now) -> None:
        if anomaly.attempt != state.run.attempt or not self._listens(anomaly.run, anomaly.attempt):
            return
        precursor = self._engine.profile.rules[anomaly.kind].precursor
        told = anomaly.id in state.spared
        decision = self._policy.decide(anomaly, state.escalations.records(), precursor=precursor, explain=not told)
        if decision.spared:
            state.spared[anomaly.id], state.refill = None, decision.refill
            self._tell_allowance(state)
            stream = Stream(anomaly.run, anomaly.attempt, anomaly.rank)
            detail: dict[str, Scalar] = {"anomaly": anomaly.id, "kind": anomaly.kind, "refill_update": decision.refill}
            work.events.append(EventRecord(stream, "", -1, anomaly.update_last, now.unix_ns, "spared", decision.spared, detail))
        request = decision.request
        if request is None or state.escalations.get(request.id) or self._store.escalation(request.run, request.id):
            return
        # One that extends another is at its level already: it takes over wherever the other stands.
        origin, same_update = f"{ANOMALY_ORIGIN}{anomaly.id}", 0 if decision.extends else self.same_update(state)
        work.escalated([state.escalations.request(request, origin, now.unix_ns, same_update=same_update, kind=anomaly.kind)])
        if decision.extends:
            work.escalated(state.escalations.cancel(decision.extends, f"extended by {request.id}"))
        work.redeliver.add(anomaly.run)
        self._tell_allowance(state)

    def _tell_allowance(self, state: RunState) -> None:
        """How much the rules may still raise this run, for people."""
        state.allowance = self._policy.allowance(state.escalations.records(), state.update_last or 0, state.refill)

    def _listens(self, run: str, attempt: int) -> bool:
        """Whether a trainer is there: rows that were recorded earlier have nobody who could look closer."""
        return any(not session.hello.replay for session in self._sessions.of_attempt(run, attempt))

    def _derive_all(self, joined: list[RowBlock]) -> list[SignalBlock | None]:
        """Signals of all rows of a tick; None for those we fail on."""
        try:
            return [*self._deriver.derive_all(joined)]
        except Exception:
            LOG.exception("rows of %d sessions cannot be derived together; each is tried by itself", len(joined))
            return [self._derive(rows) for rows in joined]

    def _derive(self, rows: RowBlock) -> SignalBlock | None:
        """Signals of rows; None when we fail on them: no other run suffers."""
        try:
            return self._deriver.derive(rows)
        except Exception:
            LOG.exception("rows %d to %d of %s cannot be derived; they are recorded as lost", *rows.seqs, rows.stream)
            return None

    def _of(self, stream: Stream) -> StreamDetection:
        detection = self._streams.get(stream)
        if detection is None:
            total = self._runs.states[stream.run].run.updates_total
            detection = self._streams[stream] = StreamDetection(stream, self._engine, total)
            detection.restore(self._store)
        return detection
