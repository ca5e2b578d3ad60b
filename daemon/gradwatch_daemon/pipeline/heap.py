"""Memory that is free and still ours: given back to the system now and then."""

from __future__ import annotations

import ctypes
import math

GIVE_BACK_S = 10.0
"""Between two times; one takes 0.1 ms where there is nothing to give and a few where a storm of frames went through, which left
40 MB behind after 1,000 trainers had sent at once."""


class Heap:
    """The allocator of this process. Only glibc's is known to keep what was freed; with others nothing is done."""

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._given_s = -math.inf

    def give_back(self, now_s: float) -> None:
        """Give back what is free, once in `GIVE_BACK_S`."""
        if self._trim is not None and now_s - self._given_s >= GIVE_BACK_S:
            self._given_s = now_s
            self._trim(0)
