"""How a run is: live, slow, stalled, lost, crashed, finished or stopped, each with one sentence that says how we know.

Intuition: a trainer has a rhythm, the usual time between two updates, learned by the stall detector from the run itself. One
that is late by 3 of these is slow; by 10 (the limits of the rule `stall`) it stands still. While it evaluates or saves a
checkpoint, and says so, nothing is late until the pause itself is far longer than any before. Who does not answer at all is
lost: we do not know what became of it, unless its process is on this machine, and then we know whether it is still there.
Crashed, finished and stopped are its own last words and nothing else.

Pure: times are arguments. A sentence holds points in time and not ages, so that it stays true while nobody looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

LATE_TIMES = 3.0
"""Of the usual time between updates after which a run is slow. Healthy ones of our corpus vary by less than 2."""

LATE_LEAST_S = 1.0
"""Below it nobody asks whether an update is late: what takes milliseconds varies by more."""

PAUSE_TIMES, PAUSE_LEAST_S = 3.0, 600.0
"""A pause is too long at 3 times the longest of its kind before, but not within ten minutes: the first one is unknown."""

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Vital:
    """How a run is, and the sentence of evidence."""

    state: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is known of a connected trainer at one moment.

    `waited_s` since the last update (or pause, or connection) at `since_ns` (unix); `usual_s` between two updates, None while
    that is learned; `patience_s` after which it stands still; `gap_s` between the last two updates, 0.0 for none. `pause` is
    the phase it is in, '' for none, since `since_ns`, and `pause_longest_s` the longest of its kind before.
    """

    update: int | None
    waited_s: float
    since_ns: int
    usual_s: float | None
    patience_s: float = 0.0
    gap_s: float = 0.0
    pause: str = ""
    pause_longest_s: float = 0.0


def judge(pulse: Pulse) -> Vital:
    """How a connected trainer is. At a limit it is still the better of the two."""
    if pulse.pause:
        return _judge_pause(pulse)
    since, usual = clock(pulse.since_ns), pulse.usual_s
    if usual is None:
        return Vital("live", f"Connected since {since}; how long an update usually takes is not known yet.")
    rhythm, late_s = f"one usually comes every {span(usual)}", max(LATE_TIMES * usual, LATE_LEAST_S)
    missing = f"No update since {since}" + (f" after update {pulse.update}" if pulse.update is not None else "")
    if pulse.waited_s > pulse.patience_s:
        return Vital("stalled", f"{missing}, over {span(pulse.patience_s)}, though the trainer answers; {rhythm}.")
    if pulse.waited_s > late_s:
        return Vital("slow", f"{missing}, over {span(late_s)}; {rhythm}.")
    if pulse.gap_s > late_s:
        return Vital("slow", f"Update {pulse.update} took {span(pulse.gap_s)}; {rhythm}.")
    return Vital("live", f"Update {pulse.update} came at {since}; {rhythm}.")


def _judge_pause(pulse: Pulse) -> Vital:
    inside = f"In {pulse.pause} since {clock(pulse.since_ns)}"
    if pulse.waited_s <= pause_patience_s(pulse.pause_longest_s):
        return Vital("live", f"{inside}.")
    longest = f"; the longest before took {span(pulse.pause_longest_s)}" if pulse.pause_longest_s else ""
    return Vital("stalled", f"{inside}, which is too long{longest}.")


def pause_patience_s(longest_s: float) -> float:
    """How long a pause may take, given the longest of its kind before."""
    return max(PAUSE_TIMES * longest_s, PAUSE_LEAST_S)


def judge_silent(process: str, pid: int, since_ns: int) -> Vital:
    """How a trainer is that does not answer. `process` is `exists`, `halted` (SIGSTOP), `gone`, or '' where it is not seen."""
    since = clock(since_ns)
    if process == "gone":
        return Vital("lost", f"Process {pid} is gone since about {since}, without a last word: killed, or out of memory.")
    if process == "halted":
        return Vital("stalled", f"No word since {since}: process {pid} is halted, by a signal or a debugger.")
    if process == "exists":
        return Vital("stalled", f"No word since {since}, though process {pid} still exists.")
    return Vital("lost", f"No word since {since}; whether it still trains is not known.")


def describe_end(state: str, update: int | None, exception: str, at_ns: int) -> str:
    """The sentence of a trainer that said how it ended. `exception` is `Type: message`, '' where none was told."""
    at = f"at {clock(at_ns)}" + (f", in update {update}" if update is not None else ", before any update")
    return {
        "crashed": f"It raised {exception or 'an exception'} {at}.",
        "stopped": f"It was interrupted {at}.",
        "imported": f"Read from a log {at}.",
    }.get(state, f"It said goodbye {at}.")


def clock(unix_ns: int) -> str:
    """A time of day in UTC with its date, to the second."""
    return datetime.fromtimestamp(unix_ns // SECOND, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: float) -> str:
    """A duration for people: 40 ms, 1.2 s, 3 min, 2 h."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
