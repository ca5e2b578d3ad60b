"""The one thread that owns the socket, all domain state and the writing connection.

A tick is: admit frames, take requests, derive, detect, escalate, commit ONE transaction, then ack, answer, deliver and
publish. Nothing is acked or announced that is not committed; while a commit fails, nothing further is received.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon import __version__
from gradwatch_daemon.anomalies.liveness import judge_silent
from gradwatch_daemon.escalate.actions import SHADOWS
from gradwatch_daemon.ingest.gate import Gate, Passed
from gradwatch_daemon.ingest.processes import Processes
from gradwatch_daemon.ingest.session import Sessions
from gradwatch_daemon.pipeline.acting import Acting
from gradwatch_daemon.pipeline.attending import Attending
from gradwatch_daemon.pipeline.control import Control
from gradwatch_daemon.pipeline.detection import Detection
from gradwatch_daemon.pipeline.heap import Heap
from gradwatch_daemon.pipeline.mailbox import Mailbox
from gradwatch_daemon.pipeline.notifying import NOBODY, Notifying
from gradwatch_daemon.pipeline.pace import Pace
from gradwatch_daemon.pipeline.portion import Portion
from gradwatch_daemon.pipeline.reception import Reception
from gradwatch_daemon.pipeline.runs import Runs
from gradwatch_daemon.pipeline.vitals import Vitals, describe_exception
from gradwatch_daemon.pipeline.work import Now, Work
from gradwatch_daemon.records import ALL_RANKS, Commit, EventRecord, Published, RunView, Stream
from gradwatch_daemon.records.commands import ANOMALY_ORIGIN
from gradwatch_daemon.store.protocol import Keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gradwatch_contracts.messages import Scalar
    from gradwatch_daemon.detect.engine import Engine
    from gradwatch_daemon.escalate.actions import Action
    from gradwatch_daemon.escalate.policy import Policy
    from gradwatch_daemon.ingest.socket import IngestSocket
    from gradwatch_daemon.notify.notifier import Notifier
    from gradwatch_daemon.records import Anomaly, Counters, Escalation, Run
    from gradwatch_daemon.records.notices import Delivery, Outcome
    from gradwatch_daemon.store.artifacts import ArtifactFiles
    from gradwatch_daemon.store.protocol import Store, StoreReader

KEEP_ALL = Keep()
LOG = logging.getLogger("gradwatch.daemon")

SWEEP_S = 0.5
SWEPT_EACH_TICK = 32
"""Trainers that are looked at in every tick; with more, all are, but only so often: a look at each costs 0.1 ms."""

POLL_MS = 500
"""Longest sleep without frames: bounds how late silence is noticed."""

RESTORED_RUNS_MAX = 64
"""Runs whose detectors are replayed at start: about 10 ms each."""

THIN_S = 60.0
"""Time between two looks at what retention may take, once it has taken all it may."""

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
        files: ArtifactFiles | None = None,
        policy: Policy | None = None,
        actions: Sequence[Action] = SHADOWS,
        notifier: Notifier = NOBODY,
        keep: Keep = KEEP_ALL,
        clock: Callable[[], Now] = Now.read,
    ) -> None:
        self.snapshots: Mapping[str, RunView] = {}
        self.trouble = ""
        self.failed = False
        self._outage_s = 0.0
        self._socket = socket
        self._store = store
        self._counters = counters
        self._publish = publish
        self._clock = clock
        self._sessions = Sessions()
        self._gate = Gate(self._sessions, counters)
        self._runs = Runs(store.runs(), store.row_counts())
        self._pace, self._processes = Pace(store.pauses()), Processes()
        senses = self._pace, self._processes
        self._reception = Reception(self._sessions, self._runs, senses, store.session, counters, secret=secret)
        self._detection = Detection(engine, store, self._runs, self._sessions, self._pace, policy=policy)
        self._vitals = Vitals(self._runs, self._pace, self._detection, self._processes)
        self._control = Control(
            self._runs, self._sessions, store, socket.send, files=files, policy=policy, same_update=self._detection.same_update
        )
        self._acting = Acting(self._runs, self._control, actions)
        self._keep, self._thin_at_s = keep, clock().mono_s if keep else math.inf
        self._swept_s = -math.inf
        self._heap = Heap()
        self._stopping = False
        self._attending = Attending(self._runs, store)
        self.mailbox = Mailbox(self._attending, self._control, self._settle, socket.wake)
        away = self._restore()
        self._notifying = Notifying(notifier, store, self._runs, self._attending, away=away, now=clock())

    def stop(self) -> None:
        """Ask the thread to finish its tick and return. Any thread may."""
        self._stopping = True
        self._socket.wake()

    def run(self) -> None:
        """Tick until stopped. A bug ends the thread and is said by `trouble`: what cannot record must not look alive."""
        portion = Portion()
        try:
            while not self._stopping:
                frames = self._socket.receive(POLL_MS, portion.frames, portion.bytes)
                waiting, begun_s = self._socket.waiting, self._clock().mono_s
                self.tick(frames, waiting)
                if waiting:
                    portion.learn(self._clock().mono_s - begun_s)
        except Exception as error:
            self.trouble, self.failed = f"the pipeline failed: {type(error).__name__}", True
            LOG.exception("the pipeline failed; the daemon ends")
        finally:
            self.mailbox.close()
            self._processes.close()

    def tick(self, frames: list[tuple[bytes, bytes]], waiting: Iterable[bytes] = ()) -> None:
        """Do one round with these frames and all waiting requests; of the peers in `waiting` more has arrived."""
        now, passed, work = self._clock(), Passed(), Work()
        self._sessions.hear(waiting, now.mono_s)
        for peer, frame in frames:
            self._gate.admit(peer, frame, now.mono_s, passed)
            work.place_losses(passed)
        self._tell_outage(work, now)
        self._reception.greet(passed, work, now)
        self._control.meet(work)
        self.mailbox.take(work, now)
        self._hear(passed, now)
        self._detection.detect(passed, work, now)
        sweep = self._sweep(now)
        if sweep:
            self._detection.watch_pace(work, now)
        self._control.look_back(work, now)
        self._acting.act(work, now)
        self._record(passed, work)
        self._reception.part(passed, work, now)
        if sweep:
            self._watch(work, now)
        self._attending.follow(work, now)
        self._notifying.follow(work, now)
        self._control.expire(work, now)
        self._acting.retry(work, now)
        self._detection.retire(work)
        self._commit(passed, work)
        self._speak(passed, work)
        self._deliver(work)
        self._thin(work, now)
        self._notifying.hand_over(work)
        self._announce(work)
        if work.blocks:
            self._compact()
        self._heap.give_back(now.mono_s)

    def _hear(self, passed: Passed, now: Now) -> None:
        """Take in what says how trainers are: their phases, their exceptions, and processes that ended."""
        for event in passed.events:
            state = self._runs.states[event.stream.run]
            if event.kind == "phase":
                self._pace.hear(state.judged(event.stream), event.stream.rank, event, now)
            elif event.kind == "exception" and event.stream.attempt == state.run.attempt:
                state.exception = state.exception or describe_exception(event)
        for id_ in self._processes.gone():
            session = self._sessions.by_id.get(id_)
            if session is not None:
                session.gone = True

    def _sweep(self, now: Now) -> bool:
        """Whether every trainer is looked at in this tick: what the clock alone may change."""
        if len(self._sessions.by_id) > SWEPT_EACH_TICK and now.mono_s - self._swept_s < SWEEP_S:
            return False
        self._swept_s = now.mono_s
        return True

    def _watch(self, work: Work, now: Now) -> None:
        """Judge how the runs are that somebody is connected for, or was until a moment ago."""
        streams: dict[str, Stream] = {}
        for session in self._sessions.by_id.values():
            state = self._runs.states[session.stream.run]
            if session.stream.attempt == state.run.attempt and not session.hello.replay:
                streams[session.stream.run] = state.judged(session.stream)
        self._reception.beside.watch(work, now)
        self._vitals.follow(streams, work, now)
        self._vitals.watch_silent(work)
        self._vitals.watch_ends(work, now)

    def _record(self, passed: Passed, work: Work) -> None:
        """What needs no detection: results, events, losses, and how far each session came."""
        for stream, result in passed.results:
            self._control.hear(stream, result, work)
        work.events.extend(passed.events)
        for loss in passed.losses:
            self._runs.states[loss.stream.run].lost += loss.last_seq - loss.first_seq + 1
            work.changed.add(loss.stream.run)
        for session in passed.touched.values():
            work.sessions[session.id] = session.record

    def _settle(self, outcome: Outcome, work: Work) -> Delivery:
        """Note what became of a delivery. By name: what makes deliveries is made after the mailbox."""
        return self._notifying.settle(outcome, work)

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
        since_s = self._clock().mono_s
        while True:
            try:
                self._store.commit(batch)
            except GradwatchError as error:
                self._counters.commit_failures += 1
                if not self.trouble:
                    LOG.error("the store cannot be written: %s; holding all acks until it can", error)
                self.trouble = "the store cannot be written; the daemon's log says why"
                self._notifying.store_fails(since_s, self._clock())
                if self._stopping:
                    raise
                time.sleep(COMMIT_RETRY_S)
                continue
            if self.trouble:
                LOG.warning("the store can be written again")
                self._outage_s = max(self._clock().mono_s - since_s, 1e-3)
                self._notifying.store_works(self._outage_s, self._clock())
            self.trouble = ""
            self._counters.commits += 1
            return

    def _tell_outage(self, work: Work, now: Now) -> None:
        """After a time without a writable store: an event and a gap in every run that lived through it."""
        seconds, self._outage_s = self._outage_s, 0.0
        for run, state in self._runs.states.items() if seconds else ():
            if state.live:
                stream = Stream(run, state.run.attempt, ALL_RANKS if state.run.world > 1 else 0)
                said = f"the daemon's store could not be written for {seconds:.1f} s; nothing was acked, nothing acked is lost"
                detail: dict[str, Scalar] = {"seconds": seconds}
                work.events.append(EventRecord(stream, "", -1, state.update_last or 0, now.unix_ns, "store", said, detail))
                self._detection.tell_outage(stream, seconds, work, now)

    def _compact(self) -> None:
        try:
            self._store.compact()
        except GradwatchError as error:
            # Tails stay as they are and the next tick tries again; the commit that fails will say it is not ready.
            LOG.error("the store cannot be compacted: %s", error)

    def _thin(self, work: Work, now: Now) -> None:
        """Let retention take what it may, a little at a time, and tell how much of each run is left as roll-ups."""
        if now.mono_s < self._thin_at_s:
            return
        try:
            thinned = self._store.thin(self._keep, now.unix_ns)
        except GradwatchError as error:
            LOG.error("old rows cannot be thinned: %s", error)
            thinned = {}
        if not thinned:
            self._control.thin_files(self._keep, now)
        self._thin_at_s = now.mono_s + (0 if thinned else THIN_S)
        for stream, rows in thinned.items():
            self._runs.states[stream.run].thinned += rows if stream.rank != ALL_RANKS else 0
            work.changed.add(stream.run)

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
        """Tell the trainers what they shall do now, and store who was told."""
        delivered, told = self._control.deliver_level(work), self._control.deliver(work)
        if delivered or told:
            work.escalated(delivered)
            work.commanded(told)
            self._write(Commit(escalations=tuple(delivered), commands=tuple(told)))

    def _announce(self, work: Work) -> None:
        views = {run: self._runs.states[run].view() for run in work.changed}
        for answer, promised in work.answers:
            record = work.newest(promised)
            answer.set_result(views[record.run.run] if isinstance(record, RunView) else record)
        out = [Published("rows", block.stream.run, block) for block in work.blocks]
        told = {**work.shown, **work.anomalies}
        out += [Published("anomaly", anomaly.run, anomaly, work.attention_of.get(id_)) for id_, anomaly in told.items()]
        out += [Published("silence", silence.run or "", silence) for silence in work.silences.values()]
        out += [Published("escalation", record.run, record) for record in work.escalations.values()]
        out += [Published("command", command.run, command) for command in work.commands.values()]
        out += [Published("run", run, view) for run, view in views.items()]
        if out:
            self.snapshots = {**self.snapshots, **views}
            self._publish(out)

    def _restore(self) -> list[str]:
        """Bring back the newest attempt of every run, so that what is shown after a restart is what was shown before.

        Detectors are replayed only for the runs heard of last; those of the others come back with their next row. Returns the
        runs that were live, whose trainers have yet to greet.
        """
        away: list[str] = []
        closed: list[Anomaly] = []
        rules_hash = self._detection.rules_hash
        by_age = sorted(self._runs.states.values(), key=lambda state: state.run.last_seen_ns, reverse=True)
        recent = {state.run.run for state in by_age[:RESTORED_RUNS_MAX]}
        for record in self._store.open_escalations():
            self._runs.states[record.run].escalations.load([record])
        for command in self._store.open_commands():
            self._runs.states[command.run].commands.load([command])
        for anomaly in self._store.open_anomalies():
            self._runs.states[anomaly.run].remember([anomaly])
        for state in self._runs.states.values():
            if any(a.rules_hash != rules_hash for a in state.open.values()):
                closed += state.close_anomalies("the rules changed")
        thinned = self._store.thinned()
        for stream, (rows, update_last) in sorted(self._store.row_counts().items()):
            state = self._runs.states[stream.run]
            if stream.rank != ALL_RANKS:
                state.rows += rows
                state.thinned += thinned.get(stream, 0)
            if rows and stream.attempt == state.run.attempt:
                state.update_last = max(state.update_last or 0, update_last)
                if stream.run in recent and stream == state.judged(stream):
                    state.detectors = self._detection.standing(stream)
        self._control.restore()
        self._detection.restore()
        if closed:
            self._store.commit(Commit(anomalies=tuple(closed)))
        reader = self._store.reader()
        self._acting.restore(reader)
        for run, state in self._runs.states.items():
            state.escalations.load(self._spent(reader, state.run))
            state.escalations.resume(self._detection.same_update(state))
            state.lost = self._store.lost_count(run)
            if state.run.state == "live":
                # Whoever was connected will greet again; until then nobody is.
                away.append(run)
                state.end(judge_silent("", 0, state.run.last_seen_ns), state.run.last_seen_ns)
        reader.close()
        self._attending.restore(self._clock())
        self._vitals.restore(self._clock())
        self.snapshots = {run: state.view() for run, state in self._runs.states.items()}
        return away

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
