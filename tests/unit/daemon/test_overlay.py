"""Acknowledgements and silences over anomalies, as a pure machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.limits import SILENCES_ACTIVE_MAX
from gradwatch_daemon.anomalies.overlay import Overlay
from gradwatch_daemon.records.attention import Acknowledge, Acknowledgement, Attention, CreateSilence
from harness.fake_records import make_anomaly

S = 1_000_000_000


def wanted(id_: str = "s1", **changes: Any) -> CreateSilence:
    """A silence of everything for an hour."""
    return replace(CreateSilence(id_, None, None, None, "expected", "owner", 3600 * S), **changes)


def test_note_alone_on_what_nobody_acknowledged_is_refused() -> None:
    """It would be shown nowhere."""
    with pytest.raises(GradwatchError) as refused:
        Overlay().acknowledge(Acknowledge("a1", "owner", None, "hm"), 5)
    assert refused.value.code.slug == "invalid-body"


def test_same_silence_id_with_other_content_is_refused_and_changes_nothing() -> None:
    """The sentence says what the first one was."""
    overlay = Overlay()
    first = overlay.create(wanted(), 10, None)
    with pytest.raises(GradwatchError, match=r"any run.*for 3600 s.*got run 'x'"):
        overlay.create(wanted(run="x"), 20, None)
    assert overlay.create(wanted(), 99, None) == first
    assert overlay.active == (first,)


def test_silence_known_to_the_store_alone_is_not_begun_again() -> None:
    """It may be long over; a resent request must not bring it back."""
    over = replace(Overlay().create(wanted(), 10, None), ended_ns=20)
    overlay = Overlay()
    assert overlay.create(wanted(), 99, over) == over
    assert overlay.active == ()


def test_silences_beyond_the_bound_are_refused() -> None:
    """Every anomaly is compared with all of them."""
    overlay = Overlay()
    for number in range(SILENCES_ACTIVE_MAX):
        overlay.create(wanted(f"s{number}"), 1, None)
    with pytest.raises(GradwatchError) as refused:
        overlay.create(wanted("more"), 1, None)
    assert refused.value.code.slug == "too-many-silences"


def test_acknowledging_again_keeps_who_was_first_and_changes_the_note() -> None:
    """A second person adds a note; undo clears it all."""
    overlay = Overlay()
    assert overlay.acknowledge(Acknowledge("a1", "ann", True, None), 5).acknowledged == Acknowledgement("ann", 5, "")
    assert overlay.acknowledge(Acknowledge("a1", "bob", True, "seed"), 6).acknowledged == Acknowledgement("ann", 5, "seed")
    assert overlay.acknowledge(Acknowledge("a1", "bob", None, "clip"), 7).acknowledged == Acknowledgement("ann", 5, "clip")
    assert overlay.acknowledge(Acknowledge("a1", "bob", False, None), 8) == Attention("a1")


@pytest.mark.parametrize(
    ("about", "muted"),
    [
        ({}, True),
        ({"run": "ant-ppo"}, True),
        ({"run": "other"}, False),
        ({"kind": "nonfinite", "subject": "actor"}, True),
        ({"kind": "kl-spike"}, False),  # attached to the root, which is another kind
        ({"subject": ""}, False),
        ({"subject": "critic"}, False),
    ],
)
def test_silence_covers_by_run_kind_and_subject_of_the_root(about: dict[str, str], muted: bool) -> None:
    """All that is given must agree; an empty subject is the one of what has none."""
    overlay = Overlay()
    overlay.create(wanted(**about), 1, None)
    changed, silences = overlay.mute([make_anomaly()])
    assert [a.silence for a in changed] == (["s1"] if muted else [])
    assert [s.muted for s in silences] == ([1] if muted else [])


def test_muted_counts_anomalies_and_not_updates_and_the_oldest_silence_counts() -> None:
    """Two updates of one and one of another are two; a second silence that also covers them mutes nothing."""
    overlay = Overlay()
    overlay.create(wanted("s1"), 1, None)
    overlay.create(wanted("s2"), 2, None)
    overlay.mute([make_anomaly()])
    overlay.mute([make_anomaly(count=9)])
    overlay.mute([make_anomaly(id="a2")])
    assert [(s.id, s.muted) for s in overlay.active] == [("s1", 2), ("s2", 0)]


def test_root_that_becomes_another_kind_is_no_longer_muted() -> None:
    """Who silenced a KL spike did not silence the NaN that took its place; coming back it counts once."""
    overlay = Overlay()
    overlay.create(wanted(kind="kl_spike"), 1, None)
    overlay.mute([make_anomaly(kind="kl_spike")])
    changed, _ = overlay.mute([make_anomaly(kind="nonfinite")])
    assert changed == [Attention("a1")]
    overlay.mute([make_anomaly(kind="kl_spike")])
    assert overlay.active[0].muted == 1


def test_silence_expires_at_its_time_and_frees_what_still_fires() -> None:
    """A tick before it holds; at it, it is over, once; what resolved under it stays marked."""
    overlay = Overlay()
    made = overlay.create(wanted(), 10, None)
    overlay.mute([make_anomaly(), make_anomaly(id="a2")])
    assert overlay.expire(made.expires_ns - 1) == []
    assert [s.id for s in overlay.expire(made.expires_ns)] == ["s1"]
    assert overlay.expire(made.expires_ns) == []
    changed, _ = overlay.mute([make_anomaly(), make_anomaly(id="a2", state="resolved")])
    assert changed == [Attention("a1")]


def test_silence_says_how_it_ended() -> None:
    """Active until its time, then expired; ended when somebody did."""
    overlay = Overlay()
    made = overlay.create(wanted(), 10, None)
    ended = overlay.end("s1", 50)
    assert ended == replace(made, ended_ns=50)
    assert overlay.end("s1", 60) is None
    assert [made.state(10), made.state(made.expires_ns), ended.state(10)] == ["active", "expired", "ended"]
