"""Updates take several times as long as they did."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_TIME = "sys.update_ms"
_WORDS = "Time from one update to the next"

SPEC = Spec(
    kind="slow_updates",
    stage=Stage.SYS,
    title="Updates became slow",
    meaning="For a dozen updates nearly each took at least twice as long as usual. Training goes on, at a fraction of its "
    "pace.",
    source="doubling of the step time for 10 of 12 updates: measured here, pauses for evaluation or a checkpoint do not "
    "reach it",
    fails_when="Another job on the same machine slows this one rightly. Episodes that become longer as the policy improves can "
    "make updates slower, more epochs too, a profile (gradwatch profile, mon.profile) of ten updates too: "
    "that is why it is a note.",
    tries=(
        "Look at the phases: if the rollout is slow it is the environments, if the update is it is the device.",
        "Look for memory that swaps, a thermal limit, or another process on the device.",
        "Look for something that grows with the run: a list that is copied, a log that is re-read.",
    ),
    sentence="{quantity} {value}{usual} at update {update}, limit {limit}, since update {onset}.",
    profiles={
        "default": Variant(
            None,
            (Need(_TIME, "call mon.step() once an update"),),
            (Threshold("times_info", _TIME, ">", 2.0, _WORDS, "ms", clear=0.75, measure=Measure.TIMES),),
            (Vote(Severity.INFO, 10, 12, Severity.INFO),),
            keep_firing=12,
            formula="time from update to update > 2 x usual in 10 of 12 updates",
            warm_up=LEARNED + GUARD,
            parts=(Part(Severity.INFO, ("times_info",)),),
        ),
    },
)
