"""Verdicts to anomalies, on the update clock: votes, causes, severity, resolution. One per stream.

Rows are taken in order of update, findings of one update in order of (onset, minibatch, catalogue); blocks
without a breach and without anything open are passed over without a loop.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any, cast

import msgpack

from gradwatch_contracts.columns import RowFlag
from gradwatch_contracts.control import Severity
from gradwatch_daemon.anomalies.cause import AFTERMATH, find_consequence, find_root, may_hold
from gradwatch_daemon.anomalies.open import OpenAnomaly, anomaly_id
from gradwatch_daemon.anomalies.resting import Resting, Standing
from gradwatch_daemon.anomalies.sentence import describe
from gradwatch_daemon.anomalies.votes import Change, Track
from gradwatch_daemon.records import Anomaly, Attached, DetectorState, Verdict, Verdicts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradwatch_daemon.records import Numbers, SignalBlock, Stream
    from gradwatch_daemon.records.rules import Rule

FORMAT = 3
"""Of `dump`. Another one is not read: the pipeline then replays from the store."""

BREACH, PARTIAL = int(Verdict.BREACH), int(RowFlag.PARTIAL)

STATE_OF = {Verdict.LEARNING: "learning", Verdict.BLIND: "blind"}
"""How a detector stands after a verdict; armed after any other."""


@dataclass(slots=True)
class _Lane:
    """One detector and subject over the present block: its track, and its columns."""

    order: int
    verdicts: Verdicts
    rule: Rule
    track: Track
    codes: bytes
    ranks: Numbers

    @property
    def key(self) -> tuple[str, str]:
        return self.verdicts.kind, self.verdicts.subject


def end_whole(block: SignalBlock) -> list[SignalBlock]:
    """Cut a block so that each part ends with a whole update or is one row.

    How detectors stand is what the last whole update showed: of one that was cut short most know nothing, and a run that
    crashed would be shown as one that nobody could see.
    """
    end = len(block)
    while end and int(block.flags[end - 1]) & PARTIAL:
        end -= 1
    if end == len(block) or len(block) == 1:
        return [block]
    cuts = [0, *range(max(end, 1), len(block) + 1)]
    return [block.select(slice(first, last)) for first, last in itertools.pairwise(cuts)]


class Lifecycle:
    """The anomalies of one stream. `rules` maps kind to rule, in the order of the catalogue."""

    def __init__(self, stream: Stream, rules: Mapping[str, Rule], rules_hash: str) -> None:
        self._stream = stream
        self._rules = rules
        self._rules_hash = rules_hash
        self._order = {kind: place for place, kind in enumerate(rules)}
        self._tracks: dict[tuple[str, str], Track] = {}
        self._open: dict[str, OpenAnomaly] = {}
        self._changed: dict[str, OpenAnomaly] = {}
        self._over: dict[str, OpenAnomaly] = {}
        """Resolved lately: a consequence, or the same again, opens them anew."""
        self._fresh: Sequence[Verdicts] = ()
        """The verdicts of the last step, until somebody asks how the detectors stand by them: that is a tenth of their size."""
        self._standings: list[Standing] = []
        self._calm: Sequence[Verdicts] = ()
        """Those of the row before, if it came alone and none of them is a breach: of most such rows they are the very same."""
        self._resting = Resting()
        self._stood: tuple[list[Standing], list[tuple[str, str]], tuple[DetectorState, ...]] = [], [], ()
        """How the detectors last stood, and what that was made of: it hardly ever changes."""

    @property
    def open(self) -> tuple[Anomaly, ...]:
        """The anomalies that fire, in the order they were opened."""
        return tuple(self._record(anomaly) for anomaly in self._open.values())

    def step(self, block: SignalBlock, verdicts: Sequence[Verdicts]) -> list[Anomaly]:
        """Take the verdicts of a block; returns the anomalies that changed, newest state of each, in order of change.

        What is pending is not returned: a vote that is not yet carried has nothing to say. Of several rows the last must
        be whole (see `end_whole`), so that the reasons in its verdicts are those of a whole update.
        """
        if not len(block):
            return []
        tracks, alone = self._tracks, len(block) == 1 and not int(block.flags[0]) & PARTIAL
        if alone and not tracks and len(verdicts) == len(self._calm) and all(map(is_, verdicts, self._calm)):
            self._resting.go_on(int(block.update[0]))
            if self._over:
                self._forget(int(block.update[0]), int(block.update[0]))
            return []
        self._calm = ()
        if not (self._fresh or self._standings) or not int(block.flags[-1]) & PARTIAL:
            self._resting.step(block, verdicts, self._last)
            self._fresh = verdicts
        if tracks:
            lanes = [self._lane(v) for v in verdicts if BREACH in v.code or (v.kind, v.subject) in tracks]
        else:
            lanes = [self._lane(v) for v in verdicts if BREACH in v.code]
        if not lanes:
            self._calm = verdicts if alone else ()
            if self._over:
                self._forget(int(block.update.min()), int(block.update.max()))
            return []
        return self._advance(list(zip(block.update.tolist(), block.t_ns.tolist(), strict=True)), lanes)

    def observe(self, update: int, t_ns: int, verdicts: Sequence[Verdicts]) -> list[Anomaly]:
        """Take verdicts that no row gave (a lost record, a deadline that passed), each of one entry, at the last update."""
        lanes = [self._lane(v) for v in verdicts]
        return self._advance([(update, t_ns)], lanes) if lanes else []

    def _advance(self, rows: list[tuple[int, int]], lanes: list[_Lane]) -> list[Anomaly]:
        self._changed = {}
        for row, (update, t_ns) in enumerate(rows):
            self._row(row, update, t_ns, lanes)
        for lane in lanes:
            if lane.track.idle:
                del self._tracks[lane.key]
        changed, self._changed = self._changed, {}
        return [self._record(anomaly) for anomaly in changed.values()]

    def detector_states(self) -> tuple[DetectorState, ...]:
        """How each detector stands after the last row: armed, learning, blind or firing, and why."""
        said = self._last()
        if self._resting.any:
            said = [self._resting.standing(*standing) for standing in said]
        firing = [key for key, track in self._tracks.items() if track.firing]
        if (said, firing) != self._stood[:2]:
            self._stood = said, firing, tuple([self._state_of(*standing) for standing in self._ordered(said)])
        return self._stood[2]

    def _last(self) -> list[Standing]:
        """What each detector said last."""
        if self._fresh:
            self._standings, self._fresh = [(v.kind, v.subject, v.code[-1], v.reason) for v in self._fresh], ()
        return self._standings

    def _ordered(self, said: list[Standing]) -> list[Standing]:
        """By the catalogue, then by subject: one block meets at once the subjects that rows meet in turn."""
        return sorted(said, key=lambda standing: (self._order[standing[0]], standing[1]))

    def _state_of(self, kind: str, subject: str, code: int, reason: str) -> DetectorState:
        track = self._tracks.get((kind, subject))
        state = "firing" if track is not None and track.firing else STATE_OF.get(Verdict(code), "armed")
        return DetectorState(kind, subject, state, reason)

    def dump(self) -> bytes:
        """Canonical bytes: the same rows in any batches give the same bytes."""
        tracks = [[*key, track.state()] for key, track in sorted(self._tracks.items())]
        anomalies = [[anomaly.state() for anomaly in known.values()] for known in (self._open, self._over)]
        standing = [list(item) for item in self._ordered(self._last())]
        return cast("bytes", msgpack.packb([FORMAT, tracks, anomalies, standing, self._resting.state()]))

    def load(self, data: bytes) -> None:
        """Become the lifecycle that gave these bytes.

        Raises:
            ValueError: for bytes of another format; the stream must then be replayed.
        """
        unpacked: list[Any] = msgpack.unpackb(data)
        if unpacked[0] != FORMAT:
            raise ValueError(f"anomaly state: expected format {FORMAT}, got {unpacked[0]!r}; replay the stream")
        _, tracks, anomalies, standing, resting = unpacked
        self._resting = Resting.restored(resting)
        self._tracks = {(kind, subject): Track.restored(state) for kind, subject, state in tracks}
        restored = [[OpenAnomaly.restored(state) for state in states] for states in anomalies]
        self._open, self._over = ({anomaly.id: anomaly for anomaly in known} for known in restored)
        self._fresh, self._calm = (), ()
        self._standings = [(kind, subject, code, reason) for kind, subject, code, reason in standing]

    def _lane(self, verdicts: Verdicts) -> _Lane:
        track = self._tracks.setdefault((verdicts.kind, verdicts.subject), Track())
        rule = self._rules[verdicts.kind]
        return _Lane(self._order[verdicts.kind], verdicts, rule, track, verdicts.code, verdicts.severity)

    def _row(self, row: int, update: int, t_ns: int, lanes: list[_Lane]) -> None:
        """One update: first what goes on or ends, then what is new, so that a finding joins only what is still open."""
        fired: list[_Lane] = []
        if self._over:
            self._forget(update, update)
        for lane in lanes:
            track, code = lane.track, lane.codes[row]
            if code != BREACH and track.idle:
                continue
            before = track.anomaly
            change = track.advance(update, code, int(lane.ranks[row]), lane.rule)
            if change in (Change.FIRED, Change.REPLACED):
                fired.append(lane)
            if change in (Change.OVER, Change.REPLACED):
                self._end(before, lane.key, update)
            elif change in (Change.GREW, Change.LIFTED):
                self._grow(lane, row, update, lifted=change is Change.LIFTED)
        if fired:
            fired.sort(key=lambda lane: self._precedence(lane, row))
            for lane in fired:
                self._place(lane, row, update, t_ns)

    def _forget(self, first: int, last: int) -> None:
        """Drop what is over for good at updates from `first` to `last`, and what a trainer that went back has not met yet."""
        self._over = {id_: a for id_, a in self._over.items() if last - AFTERMATH <= a.last <= first}

    @staticmethod
    def _precedence(lane: _Lane, row: int) -> tuple[int, int, int]:
        return lane.track.onset, int(lane.verdicts.minibatch[row]), lane.order

    def _place(self, lane: _Lane, row: int, update: int, t_ns: int) -> None:
        """Attach a new finding to what explains it, put it at the root of what it explains, or open an anomaly for it."""
        track, (kind, subject) = lane.track, lane.key
        caused = find_consequence(lane.key, track, lane.order, self._open.values(), self._rules)
        root = caused or find_root(lane.key, track, (*self._open.values(), *self._over.values()), self._rules)
        id_ = anomaly_id(self._stream, kind, subject, track.onset)
        if root is None and id_ in self._open:
            # Votes that reach back to the same onset: it is that anomaly again, unless a note has become its root meanwhile.
            if may_hold(self._open[id_], lane.key, track):
                root = self._open[id_]
            else:
                id_ = anomaly_id(self._stream, kind, subject, update)
        if root is not None:
            self._join(root, lane, row, update)
            if caused is not None:
                self._lead(caused, lane, row, update)
            return
        verdicts = lane.verdicts
        anomaly = OpenAnomaly(
            id=id_,
            kind=kind,
            subject=subject,
            rank=track.rank,
            root_rank=track.rank,
            onset=track.onset,
            fired=update,
            last=update,
            root_last=update,
            count=track.count,
            value=float(verdicts.value[row]),
            limit=float(verdicts.limit[row]),
            baseline=float(verdicts.baseline[row]),
            minibatch=int(verdicts.minibatch[row]),
            stage=int(verdicts.stage[row]),
            sentence=self._sentence(lane, row, update),
            t_ns=t_ns,
            firing=[lane.key],
        )
        track.anomaly = anomaly.id
        self._over.pop(anomaly.id, None)
        self._open[anomaly.id] = self._changed[anomaly.id] = anomaly

    def _join(self, anomaly: OpenAnomaly, lane: _Lane, row: int, update: int) -> None:
        """A finding belongs to an anomaly, which goes on or opens again."""
        lane.track.anomaly = anomaly.id
        anomaly.firing.append(lane.key)
        anomaly.last = max(anomaly.last, update)
        anomaly.resolved = None
        self._over.pop(anomaly.id, None)
        self._open[anomaly.id] = self._changed[anomaly.id] = anomaly
        if lane.key == (anomaly.kind, anomaly.subject):
            again = lane.track.onset == anomaly.onset  # the votes of an info finding, counted once more
            anomaly.root_last, anomaly.count = update, lane.track.count + (0 if again else anomaly.count)
            anomaly.rank = max(anomaly.rank, lane.track.rank)
            if lane.track.rank > anomaly.root_rank:
                self._say(anomaly, lane, row, update)
        else:
            anomaly.attach(self._attached(lane, row, update))

    def _lead(self, anomaly: OpenAnomaly, lane: _Lane, row: int, update: int) -> None:
        """A finding that began earlier takes the root's place; what was the root stays beside it."""
        anomaly.attached = [a for a in anomaly.attached if (a.kind, a.subject) != lane.key]
        anomaly.attach(anomaly.root())
        anomaly.kind, anomaly.subject = lane.key
        anomaly.onset, anomaly.root_last, anomaly.count = lane.track.onset, update, lane.track.count
        self._say(anomaly, lane, row, update)

    def _say(self, anomaly: OpenAnomaly, lane: _Lane, row: int, update: int) -> None:
        """The root's severity and numbers are those of this update."""
        verdicts = lane.verdicts
        anomaly.root_rank = lane.track.rank
        anomaly.value, anomaly.limit = float(verdicts.value[row]), float(verdicts.limit[row])
        anomaly.baseline = float(verdicts.baseline[row])
        anomaly.minibatch, anomaly.stage = int(verdicts.minibatch[row]), int(verdicts.stage[row])
        anomaly.sentence = self._sentence(lane, row, update)

    def _grow(self, lane: _Lane, row: int, update: int, *, lifted: bool) -> None:
        """A finding goes on; when its severity rose, its numbers become those of this update."""
        anomaly, track = self._open[lane.track.anomaly], lane.track
        anomaly.last = max(anomaly.last, update)
        self._changed[anomaly.id] = anomaly
        if lane.key != (anomaly.kind, anomaly.subject):
            if lifted:
                known = anomaly.attached_of(lane.key, track.onset)
                anomaly.attach(self._attached(lane, row, known.update_fired))
            return
        anomaly.root_last, anomaly.count = update, track.count
        if lifted:
            anomaly.rank = max(anomaly.rank, track.rank)
            self._say(anomaly, lane, row, update)

    def _end(self, id_: str, key: tuple[str, str], update: int) -> None:
        """A finding is over; its anomaly is resolved when none of its findings fires any more."""
        anomaly = self._open[id_]
        anomaly.firing.remove(key)
        self._changed[id_] = anomaly
        if not anomaly.firing:
            anomaly.resolved = update
            self._over[id_] = self._open.pop(id_)

    def _attached(self, lane: _Lane, row: int, fired: int) -> Attached:
        severity = list(Severity)[lane.track.rank]
        value, limit = float(lane.verdicts.value[row]), float(lane.verdicts.limit[row])
        return Attached(*lane.key, severity, lane.track.onset, fired, value, limit)

    @staticmethod
    def _sentence(lane: _Lane, row: int, update: int) -> str:
        return describe(lane.rule, lane.verdicts, row, update, lane.track.onset)

    def _record(self, anomaly: OpenAnomaly) -> Anomaly:
        return anomaly.record(self._stream, self._rules[anomaly.kind], self._rules_hash)
