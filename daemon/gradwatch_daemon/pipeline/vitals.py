"""How each run is, told when it changes: states and their evidence on the run's own rhythm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.anomalies.liveness import Pulse, Vital, judge, judge_silent
from gradwatch_daemon.pipeline.runs import PROCESS_GONE
from gradwatch_daemon.pipeline.work import Work
from gradwatch_daemon.records.run import has_ended

if TYPE_CHECKING:
    from gradwatch_daemon.ingest.processes import Processes
    from gradwatch_daemon.pipeline.detection import Detection
    from gradwatch_daemon.pipeline.pace import Pace
    from gradwatch_daemon.pipeline.runs import Runs, RunState
    from gradwatch_daemon.pipeline.work import Now
    from gradwatch_daemon.records import EventRecord, Stream

AGAIN_S = 0.5
"""A run that goes well is looked at so often: its rhythm is a median, which costs 20 us."""


class Vitals:
    """Looks at runs that are connected, at those that fell silent while their process can still be seen, and for ends."""

    def __init__(self, runs: Runs, pace: Pace, detection: Detection, processes: Processes) -> None:
        self._runs, self._pace, self._detection, self._processes = runs, pace, detection, processes
        self._looked: dict[str, tuple[float, str]] = {}
        self._over: set[str] = set()
        """Runs that are over with anomalies that stand."""

    def restore(self, now: Now) -> None:
        """After a start: what was over before is told to nobody anew."""
        self.watch_ends(Work(), now)

    def follow(self, streams: dict[str, Stream], work: Work, now: Now) -> None:
        """Judge the runs of `streams` (run → the stream that is judged), which are those that are connected."""
        for run, stream in streams.items():
            state, (looked_s, pause) = self._runs.states[run], self._looked.get(run, (0.0, ""))
            if state.vital.state == "live" and run in work.changed and now.mono_s - looked_s < AGAIN_S:
                continue
            pulse = self._pulse(state, stream, now)
            vital = judge(pulse)
            # The newest update's number in the evidence is no news by itself: it goes out with what the update changed.
            if vital.state != state.vital.state or pulse.pause != pause or run in work.changed:
                self._set(state, vital, work)
            # A look between two rows says nothing new, and must not put off the one at the next row.
            self._looked[run] = now.mono_s if run in work.changed else looked_s, pulse.pause
        for run in [run for run in self._looked if run not in streams]:
            del self._looked[run]

    def watch_silent(self, work: Work) -> None:
        """Say of runs that do not answer whether their process is still there; one that goes is watched no more."""
        for state in self._runs.states.values():
            for session, silent in list(state.silent.items()):
                seen = self._processes.state(session)
                if seen in {"", "gone"}:
                    del state.silent[session]
                    self._processes.forget(session)
                if seen == "gone":
                    state.lose(silent.rank, PROCESS_GONE, work)
                if state.run.state == "lost":
                    self._set(state, judge_silent(seen, silent.pid, silent.since_ns), work)

    def watch_ends(self, work: Work, now: Now) -> None:
        """Show what stands in a run once more when the run is over, by its end or because it was lost for long enough, and when
        such a run is there again: the records stay, and are shown as `ended` in between."""
        for run, state in self._runs.states.items():
            if not state.open:
                continue
            over = has_ended(state.vital.state, state.run.last_seen_ns, now.unix_ns)
            if over is not (run in self._over):
                self._over ^= {run}
                work.shown.update(state.open)

    def _pulse(self, state: RunState, stream: Stream, now: Now) -> Pulse:
        waited_s, moved = self._pace.waited(stream, now)
        usual_s, patience_s = self._detection.rhythm(stream)
        pause = self._pace.pause(stream)
        if pause is None:
            gap_s = self._pace.gap_s(stream)
            return Pulse(state.update_last, waited_s, moved.unix_ns, usual_s, patience_s, gap_s)
        return Pulse(
            state.update_last,
            now.mono_s - pause.begun.mono_s,
            pause.begun.unix_ns,
            usual_s,
            pause=pause.name,
            pause_longest_s=self._pace.longest_s(stream, pause.name),
        )

    @staticmethod
    def _set(state: RunState, vital: Vital, work: Work) -> None:
        if vital != state.vital:
            state.vital = vital
            work.changed.add(state.run.run)


def describe_exception(event: EventRecord) -> str:
    """`Type: message` of an event of kind `exception`, in one line."""
    kind, message = str(event.detail.get("type") or "an exception"), str(event.detail.get("message") or "")
    return " ".join(f"{kind}: {message}".split())[:EXCEPTION_CHARS] if message else kind


EXCEPTION_CHARS = 300
"""Of an exception in the sentence about a run; its traceback is in the events."""
