"""Ranks differ in what must be equal on all of them."""

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
    return judge_flag(view, rule, RowFlag.RANKS_DIFFER)


SPEC = Spec(
    kind="rank_desync",
    stage=Stage.TELEM,
    title="Ranks have left each other",
    meaning="Each rank computes weight norms, learning rate and steps from the same numbers, so they must be equal. They are "
    "not: the models of the ranks have left each other, and each averages its gradients with those of another policy.",
    source="Replicas that differ silently: PyTorch DDP broadcasts parameters once, at the start, and never compares them again",
    fails_when="Ranks that do not train one model (a sweep started by torchrun, sharded parameters) differ by design: give "
    "each its own run.",
    tries=(
        "GET /runs/{run}/events names the columns that differ, from their first update on.",
        "Look for what one rank does alone: a step skipped on it, a parameter written to, another seed before the model.",
        "Wrap the model in DistributedDataParallel, or broadcast parameters from rank 0 after whatever writes to them.",
    ),
    sentence="Ranks differ in what must be equal at update {update}, since update {onset}.",
    profiles={
        "default": Variant(
            check,
            (),
            (Threshold("marked", "", ">", 0.0, "1 where ranks differ in what must be equal", severity=Severity.WARNING),),
            (Vote(Severity.WARNING, 3, 5, Severity.WARNING),),
            keep_firing=5,
            formula="a column that must be equal differs by more than 1e-6, relatively, in 3 of 5 updates",
            warm_up=0,
        )
    },
)
