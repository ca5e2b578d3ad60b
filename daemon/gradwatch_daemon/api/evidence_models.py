"""What GET /anomalies/{id} says of the beginning of an anomaly, field by field."""

from typing import Literal

from pydantic import Field

from gradwatch_daemon.api.models import AnomalyItem, Evidence, Model, Number


class HeldUpdates(Model):
    """Which stored updates around the onset the answer rests on."""

    first: int | None = Field(description="null when none is stored")
    last: int | None
    before: int = Field(description="Updates before the onset")
    since: int = Field(description="Updates from the onset on")


class FirstSignalView(Model):
    """The signal of learning that left what was usual for it first; of several at one update the causally first."""

    signal: str = Field(examples=["grad.norm"])
    subject: str
    update: int
    value: Number
    usual: Number = Field(description="Median of the updates before")
    score: float | None = Field(description="(value - usual) / robust spread; null for a value that is not finite")


class FirstLayerView(Model):
    """The layer whose norm left what was usual for it first, from the black box of the trainer."""

    rank: int
    update: int
    step: int | None = Field(description="Clipping or optimizer step within the update, from 0; null for one of its end")
    what: Literal["gradient", "weight"]
    layer: str = Field(description="Empty where several began at once and none stands out", examples=["actor.2.weight"])
    layers: list[str] = Field(description="All that began there, the most deviating first")
    total: int = Field(description="Layers that were looked at")
    value: Number
    usual: Number
    score: float | None = Field(description="On the logarithm of the norm; null for one that is not finite")


class NormsView(Model):
    """The norms of one layer over the updates that the black box held."""

    layer: str
    what: Literal["gradient", "weight"]
    update: list[int]
    norm: list[Number] = Field(description="Largest of the update, before clipping; null where it was not measured")


class TableLink(Model):
    """A table near the onset that the trainer sent; `href` is where its numbers are, empty for one that is given here."""

    kind: str = Field(examples=["layers"])
    rank: int
    update: int
    href: str


class ExemplarsView(Model):
    """The worst transitions of an update, as the trainer sent them."""

    rank: int
    update: int
    names: list[str] = Field(examples=[["ratio", "new_logp"]])
    index: list[str] = Field(description="Of each row: minibatch, and place in it", examples=[["3:17"]])
    rows: list[list[Number]]


class EvidenceDetail(Evidence):
    """What was stored around the onset, and what deviated first in it."""

    sentence: str = Field(
        examples=["The gradient of actor.2.weight deviated first: 41.2 at update 40, step 3 (0.21 was usual)."]
    )
    updates: HeldUpdates
    first_signal: FirstSignalView | None
    first_signal_reason: str = Field(description="Why there is none; empty when there is one")
    first_layer: FirstLayerView | None
    first_layer_reason: str = Field(description="Why there is none; empty when there is one")
    norms: list[NormsView] = Field(description="Of the layers that began")
    exemplars: list[ExemplarsView]
    tables: list[TableLink]
    snapshot: str = Field(description="Every signal around the onset")


class AnomalyDetail(AnomalyItem):
    """An anomaly with the evidence of its beginning."""

    evidence: EvidenceDetail
