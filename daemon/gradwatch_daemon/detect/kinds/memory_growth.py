"""The trainer's memory grows with the run."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED, SUM_LIMIT
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_BYTES = "sys.host_bytes"
_WORDS = "Resident memory of the trainer"

SPEC = Spec(
    kind="memory_growth",
    stage=Stage.SYS,
    title="Memory grows",
    meaning="The trainer holds several times the memory it began with, and still takes more. It ends when the machine's is "
    "used up.",
    source="measured here: the memory of a trainer is flat after its first updates, but for what it keeps on purpose",
    fails_when="A replay buffer that fills, or a cache that is meant to grow, looks the same until it is full. Memory that "
    "was large "
    "before the first update is its own start. A profile (gradwatch profile, mon.profile) takes memory that the process keeps.",
    tries=(
        "Look for tensors that are kept with their graph: .item() or .detach() what goes into lists.",
        "Look for logs and episode buffers without a bound.",
        "Compare with a run without the environment's recording or rendering.",
    ),
    sentence="{quantity} {value}{usual} at update {update}, limit {limit}, since update {onset}.",
    profiles={
        "default": Variant(
            None,
            (Need(_BYTES, "call mon.step() once an update"),),
            (
                Threshold("times_info", _BYTES, ">", 1.5, _WORDS, "bytes", clear=0.8, measure=Measure.FIRST),
                Threshold("times_first", _BYTES, ">", 4.0, _WORDS, "bytes", clear=0.8, measure=Measure.FIRST),
                Threshold("sum", _BYTES, ">", SUM_LIMIT, _WORDS, clear=0.5, measure=Measure.UP),
            ),
            (Vote(Severity.WARNING, 5, 8, Severity.WARNING), Vote(Severity.INFO, 5, 8, Severity.INFO)),
            keep_firing=12,
            formula=f"memory > 1.5 x where it began (info), > 4 x (warning), with a cumulative sum of its robust score > "
            f"{SUM_LIMIT:g}, in 5 of 8 updates",
            warm_up=LEARNED + GUARD,
            parts=(Part(Severity.WARNING, ("times_first", "sum")), Part(Severity.INFO, ("times_info", "sum"))),
        ),
    },
)
