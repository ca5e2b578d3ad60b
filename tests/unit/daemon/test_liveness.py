"""How a run is, as a table: the limits on the run's own rhythm, pauses, silence, and ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwatch_daemon.anomalies.liveness import (
    PAUSE_LEAST_S,
    Pulse,
    Vital,
    describe_end,
    judge,
    judge_silent,
    span,
)

T_NS = 1_769_860_803 * 1_000_000_000
PULSE = Pulse(120, 0.0, T_NS, 2.0, 20.0)
"""An update every 2 s, the rule's patience 20 s."""


@pytest.mark.parametrize(
    ("pulse", "state", "said"),
    [
        (PULSE, "live", "Update 120 came at 2026-01-31T12:00:03Z; one usually comes every 2 s."),
        (replace(PULSE, waited_s=6.0), "live", "came at"),
        (replace(PULSE, waited_s=6.01), "slow", "No update since 2026-01-31T12:00:03Z after update 120, over 6 s;"),
        (replace(PULSE, waited_s=20.0), "slow", "over 6 s"),
        (replace(PULSE, waited_s=20.01), "stalled", "over 20 s, though the trainer answers;"),
        (replace(PULSE, gap_s=6.0), "live", "came at"),
        (replace(PULSE, gap_s=6.01), "slow", "Update 120 took 6.01 s; one usually comes every 2 s."),
        # What takes milliseconds is not late within a second.
        (replace(PULSE, usual_s=0.01, patience_s=5.0, waited_s=1.0), "live", "every 10 ms"),
        (replace(PULSE, usual_s=0.01, patience_s=5.0, waited_s=1.01), "slow", "over 1 s"),
        (replace(PULSE, usual_s=0.0, patience_s=5.0, waited_s=5.01), "stalled", "every 0 ms"),
        # Nothing is late before it is known what is usual, nor in a pause.
        (replace(PULSE, usual_s=None, waited_s=1e6), "live", "not known yet"),
        (replace(PULSE, pause="eval", waited_s=PAUSE_LEAST_S), "live", "In eval since 2026-01-31T12:00:03Z."),
        (replace(PULSE, pause="eval", waited_s=PAUSE_LEAST_S + 1), "stalled", "In eval since"),
        (replace(PULSE, pause="eval", waited_s=1500.0, pause_longest_s=500.0), "live", "In eval"),
        (replace(PULSE, pause="eval", waited_s=1501.0, pause_longest_s=500.0), "stalled", "the longest before took 8.33 min"),
        (replace(PULSE, update=None, waited_s=7.0), "slow", "No update since 2026-01-31T12:00:03Z, over"),
    ],
)
def test_connected_trainer_is_judged_by_its_own_rhythm(pulse: Pulse, state: str, said: str) -> None:
    """At a limit it is still the better of the two."""
    vital = judge(pulse)
    assert vital.state == state
    assert said in vital.evidence


@pytest.mark.parametrize(
    ("process", "state", "said"),
    [
        ("", "lost", "whether it still trains is not known"),
        ("gone", "lost", "Process 42 is gone since about 2026-01-31T12:00:03Z, without a last word"),
        ("halted", "stalled", "process 42 is halted"),
        ("exists", "stalled", "process 42 still exists"),
    ],
)
def test_silent_trainer_is_lost_unless_its_process_is_seen(process: str, state: str, said: str) -> None:
    """Lost says that we do not know; it is never crashed, which only the trainer itself can say."""
    vital = judge_silent(process, 42, T_NS)
    assert vital.state == state
    assert said in vital.evidence


def test_ends_are_said_in_one_sentence_each() -> None:
    """With the exception where one was told."""
    assert (
        describe_end("crashed", 7, "ValueError: nan", T_NS) == "It raised ValueError: nan at 2026-01-31T12:00:03Z, in update 7."
    )
    assert describe_end("crashed", None, "", T_NS).startswith("It raised an exception")
    assert describe_end("stopped", 7, "", T_NS).startswith("It was interrupted at 2026")
    assert describe_end("finished", None, "", T_NS) == "It said goodbye at 2026-01-31T12:00:03Z, before any update."


def test_evidence_holds_no_age_that_would_grow_stale() -> None:
    """The same pulse a second later says the same, so nothing is told anew."""
    later = replace(PULSE, waited_s=7.9)
    assert judge(replace(PULSE, waited_s=6.9)) == judge(later)
    assert isinstance(judge(later), Vital)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "0 ms"), (0.0404, "40.4 ms"), (1.0, "1 s"), (119.0, "119 s"), (120.0, "2 min"), (9000.0, "2.5 h")],
)
def test_span_is_said_in_the_unit_people_use(seconds: float, said: str) -> None:
    """Three digits."""
    assert span(seconds) == said
