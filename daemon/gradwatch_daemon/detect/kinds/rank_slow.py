"""One rank keeps the others waiting."""

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
    return judge_flag(view, rule, RowFlag.RANK_SLOW)


SPEC = Spec(
    kind="rank_slow",
    stage=Stage.TELEM,
    title="One rank keeps the others waiting",
    meaning="Every update takes as long as the slowest rank, and one is slower than the others again and again: they wait for "
    "it in the all-reduce.",
    source="Synchronous training runs at the pace of its slowest worker; rollouts are compared, as the wait itself hides in "
    "the update",
    fails_when="Without mon.phase('rollout') only ranks that do not wait for each other can be told apart. It need not be the "
    "same rank each time: rollouts that differ much, on every rank in turn, look alike; the events say which it was.",
    tries=(
        "GET /runs/{run}/events names the rank and both times.",
        "Time the rollout with mon.phase('rollout'): the wait for a slow rank is not seen where ranks reduce together.",
        "Look at that rank's machine: another process on its cores, a throttled device, fewer CPUs than its environments need.",
    ),
    sentence="One rank keeps the others waiting at update {update}, since update {onset}.",
    profiles={
        "default": Variant(
            check,
            (),
            (Threshold("marked", "", ">", 0.0, "1 where a rank keeps the others waiting", severity=Severity.WARNING),),
            (Vote(Severity.WARNING, 8, 10, Severity.WARNING),),
            keep_firing=5,
            formula="a rank takes 1.5 x the median of the others, and 10 % of an update more, in 8 of 10 updates",
            warm_up=0,
        )
    },
)
