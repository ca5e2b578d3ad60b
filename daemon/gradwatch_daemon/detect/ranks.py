"""What the kinds about ranks share: a flag of the combined row, which the daemon sets where it combines the ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.detect.kinds.telemetry_gap import judge_counts

if TYPE_CHECKING:
    from gradwatch_contracts.columns import RowFlag
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.records.rules import Rule


def judge_flag(view: View, rule: Rule, flag: RowFlag) -> Verdicts:
    """A breach in every row that has the flag. A run of one rank never has it."""
    limit, bit = rule.threshold("marked").limit, int(flag)  # an enum's own `&` is slow
    if view.single:
        return judge_counts(view, rule, limit, [1] if view.flags & bit else None)
    marked = (view.block.flags & bit) != 0
    return judge_counts(view, rule, limit, marked.astype(int).tolist() if marked.any() else None)
