"""What is kept between two answers of a run, and when it is made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.api.kept import STREAMS_MAX, Kept, Shares
from gradwatch_daemon.records import DetectorState, Stream
from harness.fake_api import make_daemon
from harness.fake_records import make_view

if TYPE_CHECKING:
    from gradwatch_daemon.api import models


def test_standings_are_made_anew_with_the_detectors() -> None:
    """Of the same tuple the answer is kept; of another one, equal or not, it is made."""
    kept = Kept()
    made: list[int] = []

    def make() -> list[models.DetectorStanding]:
        made.append(1)
        return []

    first = (DetectorState("kl_spike", "", "armed", ""),)
    equal = (first[0],)
    for detectors in (first, first, equal, equal, ()):
        kept.standings("ant-ppo", detectors, make)
    assert len(made) == 3


def test_shares_are_made_anew_once_a_sixteenth_of_their_updates_is_new() -> None:
    """Of a young run with every update; of an old one every 32; of another attempt, and where a run began again, at once."""
    kept = Kept()
    made: list[tuple[int, int]] = []

    def ask(update: int, attempt: int = 1) -> None:
        def make() -> Shares:
            made.append((attempt, update))
            return {}

        kept.shares(Stream("ant-ppo", attempt, 0), update, 512, make)

    for update in (*range(3), *range(1000, 1066)):
        ask(update)
    ask(1066, attempt=2)
    ask(5, attempt=2)
    assert made == [(1, 0), (1, 1), (1, 2), (1, 1000), (1, 1033), (2, 1066), (2, 5)]


def test_kept_of_very_many_runs_is_bounded() -> None:
    """All are forgotten, and come back as they are asked for."""
    kept = Kept()
    for number in range(STREAMS_MAX + 3):
        kept.shares(Stream(f"run-{number}", 1, 0), 0, 512, dict)
    assert len(kept._shares) == 3


async def test_run_whose_detectors_changed_answers_how_they_stand_now() -> None:
    """Nothing of the answer before stands in the next."""
    daemon = make_daemon()
    before = (await daemon.get("/runs/ant-ppo")).json()["standings"]
    again = (await daemon.get("/runs/ant-ppo")).json()["standings"]
    daemon.views["ant-ppo"] = make_view(detectors=(DetectorState("kl_spike", "", "armed", ""),))
    after = (await daemon.get("/runs/ant-ppo")).json()["standings"]

    assert before == again
    assert len(before) == 8
    assert [(one["kind"], one["state"]) for one in after] == [("kl_spike", "armed")]
