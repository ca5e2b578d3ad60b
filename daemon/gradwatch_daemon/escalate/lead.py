"""From which update on all ranks of a run can do something alike. Pure."""

from __future__ import annotations

import math

from gradwatch_contracts.limits import UPDATE_MAX

WISH_S = 0.25
"""What a wish may need to every rank: the rows that say where they are wait 20 ms in an agent, the daemon's tick takes as long
and commits before it tells, and the thread that hears of it waits for an interpreter that trains; of an agent that was idle
it is 100 ms. Twice what that comes to, for a rank that gets it too late begins apart from the others."""

LEAD_UPDATES_MIN = 2
"""The one that runs was begun before anybody could tell, so the next but one is the first that all may begin."""

LEAD_UPDATES_MAX = 256
"""Of updates of a millisecond or less: nobody waits longer for them than for others."""


def common_update(newest: int, usual_s: float | None) -> int:
    """The update from which on all ranks do it, where `newest` is the last that any of them has ended.

    `usual_s` is what an update usually takes; None where that is not known yet: then as if it were long. Never above what
    the store and the wire hold, for a trainer may count as it likes.
    """
    lead = LEAD_UPDATES_MIN
    if usual_s is not None:
        lead = LEAD_UPDATES_MAX if usual_s * LEAD_UPDATES_MAX <= WISH_S else max(lead, math.ceil(WISH_S / usual_s))
    return min(newest + lead, UPDATE_MAX)
