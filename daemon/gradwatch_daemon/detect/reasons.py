"""Why a detector is blind or still learning, in words: the reason, and the line to add to the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.columns import STATUS_REASON, Status
from gradwatch_daemon.detect.board import LEARNED

if TYPE_CHECKING:
    from gradwatch_daemon.records.rules import Need

NOT_SENT = 255
"""Status of a signal that is not in the rows at all."""

UPDATES_TOTAL_CALL = "pass updates_total to watch()"

CUT_SHORT = "the last update was cut short"


def nothing_sent(status: bytes) -> str:
    """Why what watches the calls themselves has nothing to watch, from the statuses of a row."""
    if int(Status.LEVEL) in status:
        return "nothing is sent at this level, so nothing can stop; raise the level to normal"
    return "no call has sent anything yet, so nothing can stop: call mon.rollout() and mon.ppo() in each update"


def learning_words(learned: int | str) -> str:
    """How far learning is, from a count or from words."""
    return learned if isinstance(learned, str) else learning_reason(learned)


def learning_reason(learned: int, needed: int = LEARNED) -> str:
    """How far learning is."""
    return f"{min(learned, needed)} of {needed} updates to learn from"


def blind_reason(name: str, status: int, need: Need) -> str:
    """Why a signal with this status cannot be judged, and the line to add."""
    if status == NOT_SENT:
        return f"{name} is not sent: {need.add}"
    if status != Status.MEASURED:
        return f"{name}: {STATUS_REASON[Status(status)]}{_remedy(Status(status), need)}"
    return f"{name} is NaN, so it compares with nothing"


def _remedy(status: Status, need: Need) -> str:
    if status is Status.NOT_CALLED:
        return f"; {need.add}"
    if status is Status.LEVEL:
        return "; raise the level to normal"
    return f"; {need.undefined}" if status is Status.UNDEFINED and need.undefined else ""
