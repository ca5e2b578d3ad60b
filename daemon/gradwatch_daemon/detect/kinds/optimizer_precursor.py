"""The gradient has outrun the optimizer's memory of it: what a loss spike looks like before it comes."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.spec import LOGP_CALL, Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_SAMPLE, _ADAM = "policy.kl.k3.sample_max", "opt.adam.rms"
_KL, _LAG = "Largest KL of one sample", "Gradient over Adam's root mean square of it"

SPEC = Spec(
    kind="optimizer_precursor",
    stage=Stage.OPT,
    title="Signs of a spike to come",
    meaning="A sample moved far further than any usually does, or gradients are larger than Adam's second moment knows of, "
    "so its "
    "next steps are too large. Nothing is wrong yet: the level is raised, so that what follows is seen.",
    source="Adam's update grows where its second moment lags behind the gradient: Wortsman et al. 2023, Stable and "
    "low-precision "
    "training (the sign comes 1 to 8 iterations before the loss spike); limits measured here",
    fails_when="Each new rollout raises the gradient a little; the comparison is with the run's own usual. Most of these "
    "pass: it is "
    "a reason to look closer, not an alarm.",
    tries=(
        "Look at the updates recorded at debug around it; do nothing if they are well.",
        "If spikes follow, lower Adam's beta2 to 0.95, or clip at a smaller norm.",
    ),
    precursor=True,
    profiles={
        "default": Variant(
            None,
            (Need(_SAMPLE, LOGP_CALL), Need(_ADAM, "pass the optimizer to watch()", optional=True)),
            (
                Threshold("sample", _SAMPLE, ">", 2.0, _KL, "nats", severity=Severity.INFO, clear=0.5),
                Threshold("sample_z", _SAMPLE, ">", 4.0, _KL, clear=0.5, measure=Measure.Z),
                Threshold("lag", _ADAM, ">", 2.3, _LAG, severity=Severity.INFO, clear=0.7),
                Threshold("lag_z", _ADAM, ">", 4.0, _LAG, clear=0.5, measure=Measure.Z),
            ),
            (Vote(Severity.INFO, 1, 1, Severity.INFO),),
            keep_firing=8,
            formula="largest KL of one sample > 2 and z(log) > 4, or gradient over Adam's root mean square > 2.3 and z(log) "
            "> 4",
            warm_up=LEARNED + GUARD,
            parts=(Part(Severity.INFO, ("sample", "sample_z")), Part(Severity.INFO, ("lag", "lag_z"))),
        ),
    },
)
