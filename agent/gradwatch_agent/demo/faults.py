"""The faults the demo can plant: which knob of which trainer, from which update, and what must be found.

What a fault does to the trainer is in `sabotage`; this table needs no torch, so that the demo can list it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradwatch_contracts.control import Severity

CARTPOLE, RECALL = "ppo_cartpole", "ppo_recall_lstm"
TRAINERS = {CARTPOLE: "PPO on CartPole-v1", RECALL: "PPO with an LSTM on Recall"}
"""Module beside this one → what it trains."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted fault. `expected` are the anomaly kinds of which it must raise one; none for a healthy run.

    `update` is where it begins; the onset must be seen there or at most `within` updates later. `stage` is the stage the
    anomaly must name as its root, '' for any. A fault changes the trainer or its environment, never an argument of the
    monitor.
    """

    name: str
    what: str
    expected: tuple[str, ...]
    update: int = 90
    within: int = 3
    stage: str = ""
    trainer: str = CARTPOLE

    def raised(self, anomaly: dict[str, Any]) -> bool:
        """Whether this anomaly is what the fault must raise: kind, onset, above info, and the stage where the fault has one."""
        late = anomaly["update_onset"] - self.update
        staged = not self.stage or anomaly["root"]["stage"] == self.stage
        serious = anomaly["severity"] != Severity.INFO.value
        return serious and anomaly["kind"] in self.expected and 0 <= late <= self.within and staged

    def found(self, anomalies: list[dict[str, Any]]) -> bool | None:
        """Whether what was planted is among these; None where nothing was planted, so that there is nothing to find."""
        return any(self.raised(anomaly) for anomaly in anomalies) if self.expected else None

    def shown(self, anomalies: list[dict[str, Any]]) -> bool:
        """Whether a run showed what it must: what the fault raises, or nothing above info when nothing is broken."""
        found = self.found(anomalies)
        return all(anomaly["severity"] == Severity.INFO.value for anomaly in anomalies) if found is None else found


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("none", "nothing is broken", ()),
        Fault("ratio", "an optimizer step moves the policy far from where it collected, in 2 updates", ("ratio_explosion",)),
        Fault("entropy", "a bad restore leaves one action with a bias of +20", ("entropy_collapse",), update=20, within=5),
        Fault("kl", "the first optimizer step of every update overshoots, to and fro", ("kl_spike", "kl_extreme")),
        Fault("mismatch", "old log-probabilities are those of the rollout before", ("rollout_mismatch",)),
        Fault("value", "the critic sees observations a hundred times too large", ("value_collapse",), within=8),
        Fault("nan", "one environment returns a NaN reward once", ("nonfinite",), stage="reward"),
        Fault("weights-nan", "one weight of the policy becomes NaN after an update", ("nonfinite",), stage="param"),
        Fault("gradient", "the loss is scaled by 65536 and its gradients never unscaled", ("gradient_exploding",)),
        Fault("vanishing", "gradients are divided by a loss scale that was never applied", ("gradient_vanishing",)),
        Fault("drift", "the scale of the loss grows by 15 % an update", ("gradient_drift",), within=30),
        Fault("lstm", "forget and input gate biases get +20", ("lstm_unhealthy",), trainer=RECALL),
        Fault("degradation", "the environment swaps ever more actions", ("performance_degradation",), within=40),
        Fault("skipped", "the optimizer skips every step, as with a broken GradScaler", ("skipped_steps",)),
        Fault("stall", "the environment hangs for 8 seconds or 15 usual updates", ("stall",)),
    )
}
"""Name → fault."""
