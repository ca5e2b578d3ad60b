"""A rank sends no rows any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.columns import RowFlag
from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.ranks import judge_flag
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.records.rules import Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.records.rules import Rule


def check(view: View, rule: Rule) -> Verdicts:
    """The flag of the combined row."""
    return judge_flag(view, rule, RowFlag.RANKS_MISSING)


SPEC = Spec(
    kind="rank_missing",
    stage=Stage.TELEM,
    title="A rank is missing",
    meaning="The updates of the run are combined without one of its ranks, so every signal holds for the others only. The rank "
    "died, hangs, or is not watched.",
    source="Ranks of one run meet in every all-reduce, so a rank that is eight updates behind, or said goodbye, is not coming",
    fails_when="A rank that is never watched is missing from the start. Ranks that end at different updates on purpose are "
    "missing at the end.",
    tries=(
        "GET /runs/{run}/events names the rank; look at its log and its machine: the others will soon hang in an all-reduce.",
        "Call gradwatch.watch() on every rank: it is the same line, and each sends only its own share.",
    ),
    sentence="A rank is missing at update {update}, since update {onset}.",
    profiles={
        "default": Variant(
            check,
            (),
            (
                Threshold(
                    "marked", "", ">", 0.0, "1 where a rank is missing from the combined update", severity=Severity.WARNING
                ),
            ),
            (Vote(Severity.WARNING, 3, 5, Severity.WARNING),),
            keep_firing=5,
            formula="combined updates lack a rank in 3 of 5",
            warm_up=0,
        )
    },
)
