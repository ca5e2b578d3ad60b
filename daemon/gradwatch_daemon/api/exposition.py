"""The Prometheus text format 0.0.4, written: families of samples to one page. Knows nothing of what they mean."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge"]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: a counter's name ends in `_total`, units are base units. `samples` may grow until it is written."""

    name: str
    kind: Kind
    help: str
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> None:
        """One sample; None is not measured and so no sample, never a 0."""
        if value is not None:
            self.samples.append((labels, value))


def expose(families: Iterable[Family]) -> str:
    """The page: every family with its HELP and TYPE, also one that has no sample yet."""
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {_escape_help(family.help)}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape_label(value)}"' for name, value in labels.items()) + "}"


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', r"\"")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(int(value)) if isinstance(value, int) else repr(value)  # int() makes 1 of True
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
