"""The one thread that owns the socket, all domain state and the writing connection.

A tick is: admit frames, take requests, derive, detect, escalate, commit ONE transaction, then ack, answer, deliver and
publish. Nothing is acked or announced that is not committed; while a commit fails, nothing further is received.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.control import Level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon import __version__
from gradwatch_daemon.derive.derive import Deriver
from gradwatch_daemon.escalate.policy import ANOMALY_ORIGIN, decide
from gradwatch_daemon.ingest.gate import Gate, Passed, join_rows
from gradwatch_daemon.ingest.session import Sessions
from gradwatch_daemon.pipeline.mailbox import Mailbox
from gradwatch_daemon.pipeline.reception import Reception
from gradwatch_daemon.pipeline.runs import Runs
from gradwatch_daemon.pipeline.stream import StreamDetection
from gradwatch_daemon.pipeline.work import Now, Work
from gradwatch_daemon.records import Commit, LossRecord, Newest, Published

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gradwatch_daemon.detect.engine import Engine
    from gradwatch_daemon.ingest.socket import IngestSocket
    from gradwatch_daemon.pipeline.runs import RunState
    from gradwatch_daemon.pipeline.work import Gap
    from gradwatch_daemon.records import Anomaly, Counters, Escalation, RowBlock, Run, RunView, SignalBlock, Stream
    from gradwatch_daemon.store.protocol import Store, StoreReader

LOG = logging.getLogger("gradwatch.daemon")

FRAMES_PER_TICK = 512
"""Frames taken in one tick: bounds the transaction to about 20 ms, so a request never waits longer."""

POLL_MS = 500
"""Longest sleep without frames: bounds how late silence is noticed."""

RESTORED_RUNS_MAX = 64
"""Runs whose detectors are replayed at start: about 10 ms each."""

PACE_LEAST_S = 1.0
"""Time without an update below which nobody asks whether that is long."""

ANSWERS_S = 1.5 * limits.HEARTBEAT_S
"""A trainer heard of within this time lives; one that does not answer is lost, which is not a stall."""

COMMIT_RETRY_S = 0.5
"""Pause after a failed commit (a full disk does not free itself faster)."""


class Pipeline:
    """Ingest to commit, in one thread. HTTP reaches it by `mailbox` only, and reads `snapshots`.

    `trouble` says why the daemon is not ready, '' when it is; anybody may read it, so it names no paths. `failed` is
    whether the thread ended by a bug.
    """

    def __init__(
        self,
        socket: IngestSocket,
        store: Store,
        engine: Engine,
        counters: Counters,
        publish: Callable[[list[Published]], None],
        *,
        secret: str = "",
        clock: Callable[[], Now] = Now.read,
    ) -> None:
        self.snapshots: Mapping[str, RunView] = {}
        self.trouble = ""
        self.failed = False
        self._socket = socket
        self._store = store
        self._engine = engine
        self._counters = counters
        self._publish = publish
        self._clock = clock
        self._sessions = Sessions()
        self._gate = Gate(self._sessions, counters)
        self._deriver = Deriver()
        self._runs = Runs(store.runs(), store.row_counts())
        self._reception = Reception(self._sessions, self._runs, store.session, counters, secret)
        self._streams: dict[Stream, StreamDetection] = {}
        self._moved: dict[Stream, float] = {}
        self._stopping = False
        self.mailbox = Mailbox(self._runs, store, socket.wake)
        self._restore()

    def stop(self) -> None:
        """Ask the thread to finish its tick and return. Any thread may."""
        self._stopping = True
        self._socket.wake()

    def run(self) -> None:
        """Tick until stopped. A bug ends the thread and is said by `trouble`: what cannot record must not look alive."""
        try:
            while not self._stopping:
                self.tick(self._socket.receive(POLL_MS, FRAMES_PER_TICK))
        except Exception as error:
            self.trouble, self.failed = f"the pipeline failed: {type(error).__name__}", True
            LOG.exception("the pipeline failed; the daemon ends")
        finally:
            self.mailbox.close()

    def tick(self, frames: list[tuple[bytes, bytes]]) -> None:
        """Do one round with these frames and all waiting requests."""
        now, passed, work = self._clock(), Passed(), Work()
        for peer, frame in frames:
            self._gate.admit(peer, frame, now.mono_s, passed)
            work.place_losses(passed)
        self._reception.greet(passed, work, now)
        self.mailbox.take(work, now)
        self._detect(passed, work, now)
        self._watch_pace(work, now)
        self._record(passed, work)
        self._reception.part(passed, work, now)
        self._retire(work)
        self._commit(passed, work)
        self._speak(passed, work)
        self._deliver(work)
        self._announce(work)
        if work.blocks:
            self._compact()

    def _detect(self, passed: Passed, work: Work, now: Now) -> None:
        gaps: dict[Stream, deque[Gap]] = {}
        for gap in work.gaps:
            gaps.setdefault(gap.loss.stream, deque()).append(gap)
        seen: dict[Stream, int] = {}
        for rows in join_rows(passed.rows):
            state = self._runs.states[rows.stream.run]
            detection = self._detection(rows.stream, state)
            block = self._derive(rows, passed)
            before = seen.get(rows.stream, 0)
            seen[rows.stream] = before + len(rows.update)
            if block is None:
                work.place_losses(passed)
                self._lose(work.gaps[-1].loss, work, now)
                continue
            self._advance(detection, block, before=before, gaps=gaps.get(rows.stream, deque()), work=work, now=now)
            work.blocks.append(block)
            work.changed.add(rows.stream.run)
            state.rows += len(block)
            self._moved[rows.stream] = now.mono_s
            if rows.stream.attempt == state.run.attempt:
                state.update_last = max(state.update_last or 0, int(block.update.max()))
                state.effective = Level(int(block.level[-1]))
                state.run = replace(state.run, last_seen_ns=now.unix_ns)
                if rows.stream.rank == 0 or not state.detectors:
                    state.detectors = detection.detector_states
                if rows.stream.rank == 0:
                    state.newest = Newest.of(block, now.unix_ns)
        for of_stream in gaps.values():
            for gap in of_stream:
                self._lose(gap.loss, work, now)
        # After all blocks of a stream: a checkpoint covers everything that its transaction writes.
        for stream in {block.stream for block in work.blocks}:
            checkpoint = self._streams[stream].checkpoint_if_due()
            if checkpoint is not None:
                work.checkpoints.append(checkpoint)

    def _advance(
        self, detection: StreamDetection, block: SignalBlock, *, before: int, gaps: deque[Gap], work: Work, now: Now
    ) -> None:
        """Detect on a block, and on the losses within it where they happened; `before` rows of this tick are done."""
        done = 0
        while gaps and gaps[0].rows_before - before < len(block):
            gap = gaps.popleft()
            until = gap.rows_before - before
            if until > done:
                self._found(detection.advance(block.select(slice(done, until))), work, now)
                done = until
            self._lose(gap.loss, work, now)
        self._found(detection.advance(block.select(slice(done, len(block))) if done else block), work, now)

    def _lose(self, loss: LossRecord, work: Work, now: Now) -> None:
        state = self._runs.states[loss.stream.run]
        detection = self._detection(loss.stream, state)
        anomalies, mark = detection.lose(loss, now.unix_ns)
        work.events.append(mark)
        self._found(anomalies, work, now)

    def _watch_pace(self, work: Work, now: Now) -> None:
        """Tell detection when a trainer that answers has not ended an update for too long. On the daemon's own monotonic
        clock since its last row came: the trainer's may stand anywhere."""
        for session in work.welcomes:
            self._moved[session.stream] = now.mono_s
        for session in self._sessions.by_id.values():
            stream, state = session.stream, self._runs.states[session.stream.run]
            waited_s = now.mono_s - self._moved.setdefault(stream, now.mono_s)
            answers = now.mono_s - session.heard_s <= ANSWERS_S
            past = session.hello.replay or stream.attempt != state.run.attempt
            if waited_s < PACE_LEAST_S or not answers or past:
                continue
            detection = self._detection(stream, state)
            told = detection.tick(int(waited_s * 1e9))
            if told is not None:
                work.events.append(told[1])
                self._found(told[0], work, now)
                if stream.rank == 0:
                    state.detectors = detection.detector_states

    def _found(self, anomalies: list[Anomaly], work: Work, now: Now) -> None:
        """Note what detection changed, and raise the level where that asks for it."""
        for anomaly in anomalies:
            state = self._runs.states[anomaly.run]
            if anomaly.attempt == state.run.attempt:
                state.remember([anomaly])
            work.noted([anomaly])
            self._escalate(anomaly, state, work, now)

    def _derive(self, rows: RowBlock, passed: Passed) -> SignalBlock | None:
        """Signals of rows; None when we fail on them: then they are a loss of ours, and no other run suffers."""
        try:
            return self._deriver.derive(rows)
        except Exception:
            LOG.exception("rows %d to %d of %s cannot be derived; they are recorded as lost", *rows.seqs, rows.stream)
            # Counted with the other losses of this tick, in `_record`.
            passed.losses.append(LossRecord(rows.stream, rows.session, *rows.seqs, "the daemon failed on them"))
            return None

    def _escalate(self, anomaly: Anomaly, state: RunState, work: Work, now: Now) -> None:
        if anomaly.attempt != state.run.attempt or not self._listens(anomaly.run, anomaly.attempt):
            return
        request = decide(anomaly, state.escalations.records())
        if request is None or state.escalations.get(request.id) or self._store.escalation(request.run, request.id):
            return
        work.escalated([state.escalations.request(request, f"{ANOMALY_ORIGIN}{anomaly.id}", now.unix_ns, None)])
        work.redeliver.add(anomaly.run)

    def _listens(self, run: str, attempt: int) -> bool:
        """Whether a trainer is there: rows that were recorded earlier have nobody who could look closer."""
        return any(not session.hello.replay for session in self._sessions.of_attempt(run, attempt))

    def _record(self, passed: Passed, work: Work) -> None:
        """What needs no detection: results, events, losses, and how far each session came."""
        for stream, result in passed.results:
            state = self._runs.states[stream.run]
            if stream.attempt == state.run.attempt:
                work.escalated(state.escalations.result(result.id, result.state, result.update, result.reason))
        work.events.extend(passed.events)
        for loss in passed.losses:
            self._runs.states[loss.stream.run].lost += loss.last_seq - loss.first_seq + 1
            work.changed.add(loss.stream.run)
        for session in passed.touched.values():
            work.sessions[session.id] = session.record

    def _retire(self, work: Work) -> None:
        """Detection of runs that nobody feeds is put away; checkpoint and rows bring it back."""
        idle = {run for run in work.changed if not self._runs.states[run].live}
        for stream in [stream for stream in self._streams if stream.run in idle]:
            del self._streams[stream]
            self._moved.pop(stream, None)

    def _commit(self, passed: Passed, work: Work) -> None:
        for run in work.changed:
            state = self._runs.states[run]
            state.run = replace(state.run, revision=state.escalations.desired().revision)
            work.runs[run] = state.run
        batch = work.batch(passed)
        if batch != Commit():
            self._write(batch)

    def _write(self, batch: Commit) -> None:
        """Commit, again and again until it works: state has moved, so receiving on would lose what is not stored."""
        while True:
            try:
                self._store.commit(batch)
            except GradwatchError as error:
                self._counters.commit_failures += 1
                if not self.trouble:
                    LOG.error("the store cannot be written: %s; holding all acks until it can", error)
                self.trouble = "the store cannot be written; the daemon's log says why"
                if self._stopping:
                    raise
                time.sleep(COMMIT_RETRY_S)
                continue
            if self.trouble:
                LOG.warning("the store can be written again")
            self.trouble = ""
            self._counters.commits += 1
            return

    def _compact(self) -> None:
        try:
            self._store.compact()
        except GradwatchError as error:
            # Tails stay as they are and the next tick tries again; the commit that fails will say it is not ready.
            LOG.error("the store cannot be compacted: %s", error)

    def _speak(self, passed: Passed, work: Work) -> None:
        for session in work.welcomes:
            desired = self._runs.states[session.stream.run].escalations.desired()
            welcome = m.Welcome(session.stream.attempt, limits.WINDOW_RECORDS, session.last_seq, desired, __version__)
            self._socket.send(session.peer, encode(welcome))
            session.acked_seq = session.last_seq
            work.redeliver.add(session.stream.run)
        for peer, message in passed.replies:
            self._socket.send(peer, encode(message))
        for session in passed.touched.values():
            if session.last_seq > session.acked_seq and self._socket.send(session.peer, encode(m.Ack(session.last_seq))):
                session.acked_seq = session.last_seq

    def _deliver(self, work: Work) -> None:
        """Send the desired state where it changed. Delivered means: handed to the connection of a live session."""
        delivered: list[Escalation] = []
        for run in work.redeliver:
            escalations = self._runs.states[run].escalations
            frame = encode(m.LevelMessage(escalations.desired()))
            live = self._sessions.of_attempt(run, self._runs.states[run].run.attempt)
            sent = [self._socket.send(session.peer, frame) for session in live]
            if any(sent):
                delivered += escalations.delivered()
        if delivered:
            work.escalated(delivered)
            self._write(Commit(escalations=tuple(delivered)))

    def _announce(self, work: Work) -> None:
        for answer, record in work.answers:
            answer.set_result(work.escalations.get((record.run, record.id), record))
        views = {run: self._runs.states[run].view() for run in work.changed}
        out = [Published("rows", block.stream.run, block) for block in work.blocks]
        out += [Published("anomaly", anomaly.run, anomaly) for anomaly in work.anomalies.values()]
        out += [Published("escalation", record.run, record) for record in work.escalations.values()]
        out += [Published("run", run, view) for run, view in views.items()]
        if out:
            self.snapshots = {**self.snapshots, **views}
            self._publish(out)

    def _detection(self, stream: Stream, state: RunState) -> StreamDetection:
        detection = self._streams.get(stream)
        if detection is None:
            detection = self._streams[stream] = StreamDetection(stream, self._engine, state.run.updates_total)
            detection.restore(self._store)
        return detection

    def _restore(self) -> None:
        """Bring back the newest attempt of every run, so that what is shown after a restart is what was shown before.

        Detectors are replayed only for the runs heard of last; those of the others come back with their next row.
        """
        closed: list[Anomaly] = []
        by_age = sorted(self._runs.states.values(), key=lambda state: state.run.last_seen_ns, reverse=True)
        recent = {state.run.run for state in by_age[:RESTORED_RUNS_MAX]}
        for record in self._store.open_escalations():
            self._runs.states[record.run].escalations.load([record])
        for anomaly in self._store.open_anomalies():
            self._runs.states[anomaly.run].remember([anomaly])
        for state in self._runs.states.values():
            if any(a.rules_hash != self._engine.profile.rules_hash for a in state.open.values()):
                closed += state.close_anomalies("the rules changed")
        for stream, (rows, update_last) in sorted(self._store.row_counts().items()):
            state = self._runs.states[stream.run]
            state.rows += rows
            if rows and stream.attempt == state.run.attempt:
                state.update_last = max(state.update_last or 0, update_last)
                if stream.run in recent and not state.detectors:
                    state.detectors = self._detection(stream, state).detector_states
        self._streams.clear()
        if closed:
            self._store.commit(Commit(anomalies=tuple(closed)))
        reader = self._store.reader()
        for run, state in self._runs.states.items():
            state.escalations.load(self._spent(reader, state.run))
            state.lost = self._store.lost_count(run)
            if state.run.state == "live":
                # Whoever was connected will greet again; until then nobody is.
                state.run = replace(state.run, state="lost")
        reader.close()
        self.snapshots = {run: state.view() for run, state in self._runs.states.items()}

    @staticmethod
    def _spent(reader: StoreReader, run: Run) -> list[Escalation]:
        """What the rules raised in the present attempt and is over: it counts against their budget."""
        return [
            record
            for record in reversed(reader.escalations(run.run))
            if not record.state.open
            and record.origin.startswith(ANOMALY_ORIGIN)
            and (anomaly := reader.anomaly(record.origin.removeprefix(ANOMALY_ORIGIN))) is not None
            and anomaly.attempt == run.attempt
        ]
