"""The table of cases as it stands in docs/corpus.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.corpus.cases import CASES, Case

if TYPE_CHECKING:
    from collections.abc import Iterator


def case_table() -> str:
    """Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "| case | what | trainer | updates | from | class | seeds | found by |"
    yield "|" + " --- |" * 8
    for case in CASES.values():
        begin = "-" if case.healthy and case.inject > case.setup.updates else str(case.inject)
        found = ", ".join(f"`{kind}`" for kind in sorted(case.roots)) or "-"
        more = ", ".join(f"`{kind}`" for kind in sorted(case.accepts - case.roots))
        cells = [case.id, case.title, _trainer(case), str(case.setup.updates), begin, case.nature, str(case.seeds)]
        yield "| " + " | ".join([*cells, f"{found}; also {more}" if more else found]) + " |"


def _trainer(case: Case) -> str:
    kind = "SB3 PPO" if case.arm == "sb3" else "PPO-LSTM" if case.setup.recurrent else "PPO"
    return f"{kind}, {case.setup.environment}"
