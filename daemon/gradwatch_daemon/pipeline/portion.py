"""How much one tick takes of what waits: as much as it can do in `TICK_S`, by what the ticks before it took. Pure."""

from __future__ import annotations

TICK_S = 0.03
"""How long a full tick should last: everybody else's rows and requests wait for it. What a tick costs whatever it takes, a
commit and some thousand small steps, is 3 ms."""

FRAMES = 512
BYTES = 1024 * 1024
"""What the first tick takes, and each one that takes long: about 700 rows in batches. Less would not end sooner by as much, for
what a tick costs in any case, and a machine that is busy would be made busier."""

SCALE_MAX = 4.0
"""At most so many times that, where rows cost little."""

GROW_MOST, SHRINK_MOST = 1.25, 0.5
"""In one step: a tick that waited for the disk says little of the next one."""


class Portion:
    """Frames and bytes that the next tick takes at most."""

    __slots__ = ("_scale",)

    def __init__(self) -> None:
        self._scale = 1.0

    @property
    def frames(self) -> int:
        """At most so many frames."""
        return int(FRAMES * self._scale)

    @property
    def bytes(self) -> int:
        """None more once they have so many bytes."""
        return int(BYTES * self._scale)

    def learn(self, took_s: float) -> None:
        """A tick took all that it might, and so long."""
        step = min(GROW_MOST, max(SHRINK_MOST, TICK_S / max(took_s, 1e-6)))
        self._scale = min(SCALE_MAX, max(1.0, self._scale * step))
