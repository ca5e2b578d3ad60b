"""What a column and a signal are declared by; the registry in signals.py is made of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_contracts.columns import Column, Kind, RankRule
from gradwatch_contracts.vocabulary import Source, Stage, Unit

if TYPE_CHECKING:
    from gradwatch_contracts.control import Level


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column a collector may produce. `call` is the agent call that feeds it; `per` names its subject, '' for none."""

    name: str
    kind: Kind
    rank_rule: RankRule
    level: Level
    source: Source
    call: str
    per: str = ""

    def column(self, subject: str = "") -> Column:
        """The travelling column for one subject."""
        return Column(self.name, self.kind, self.rank_rule, subject)


@dataclass(frozen=True, slots=True)
class Signal:
    """One named series. `formula` is a function of `derive.formulas` applied to `columns`, whose first gives subject,
    level and source. `sign` is "signed" or "nonnegative". `window` says over what it is taken."""

    name: str
    unit: Unit
    formula: str
    columns: tuple[str, ...]
    estimator: str
    window: str = "whole update"
    sign: str = "nonnegative"

    @property
    def stage(self) -> Stage:
        """First part of the name."""
        return Stage(self.name.split(".", 1)[0])

    @property
    def spec(self) -> ColumnSpec:
        """The spec of the leading column."""
        from gradwatch_contracts.signals import COLUMNS  # noqa: PLC0415 - the registry is made of these definitions

        return COLUMNS[self.columns[0]]
