"""Frames that arrived and wait for a tick, by connection: each has its turn, whatever the others send. Pure.

ZeroMQ takes from all connections in turn, but by frames: one that sends frames of 256 rows as fast as it can had 99 per cent of
a tick beside trainers that send two at a time, and they waited for seconds. Here turns are by bytes.
"""

from __future__ import annotations

from collections import deque

from gradwatch_contracts import limits

FRAME_COST_BYTES = 64
"""What a frame costs beside its bytes: the object and its place in line. Else empty frames would wait without a bound."""

WAITING_BYTES_MAX = limits.OUTBOX_BYTES // 2 + limits.WINDOW_RECORDS * FRAME_COST_BYTES
"""Of one connection: what an agent has on its way at most, a record to a frame. Whoever sends more does not keep to the window,
and loses the frame; an agent would be asked to send it again."""


class Turns:
    """Frames by peer, in order of arrival within each. `dropped` counts those beyond `WAITING_BYTES_MAX`."""

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: dict[bytes, deque[bytes]] = {}
        self._bytes: dict[bytes, int] = {}

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Those of whom something waits."""
        return tuple(self._waiting)

    def put(self, peer: bytes, frame: bytes) -> None:
        """Let a frame wait, unless too much of this peer does."""
        held = self._bytes.get(peer, 0)
        if held and held + _cost(frame) > WAITING_BYTES_MAX:
            self.dropped += 1
            return
        self._waiting.setdefault(peer, deque()).append(frame)
        self._bytes[peer] = held + _cost(frame)

    def take(self, frames_most: int, bytes_most: int) -> list[tuple[bytes, bytes]]:
        """Frames of all peers, round after round: in each a peer gives one frame, and more while they stay within its share of
        the bytes. Ends at either bound; who had the last turn is last in the next one."""
        taken: list[tuple[bytes, bytes]] = []
        size = 0
        while self._waiting and len(taken) < frames_most and size < bytes_most:
            share = (bytes_most - size) // len(self._waiting)
            for peer in list(self._waiting):
                given = self._give(peer, share, frames_most - len(taken))
                taken += [(peer, frame) for frame in given]
                size += sum(map(len, given)) or 1
                if len(taken) >= frames_most or size >= bytes_most:
                    break
        return taken

    def _give(self, peer: bytes, share: int, most: int) -> list[bytes]:
        """One frame of a peer, and more of at most `share` bytes together; then it is last in line."""
        frames = self._waiting.pop(peer)
        given = [frames.popleft()]
        size, cost = len(given[0]), _cost(given[0])
        while frames and len(given) < most and size + len(frames[0]) <= share:
            size += len(frames[0])
            cost += _cost(frames[0])
            given.append(frames.popleft())
        if frames:
            self._waiting[peer] = frames
            self._bytes[peer] -= cost
        else:
            del self._bytes[peer]
        return given


def _cost(frame: bytes) -> int:
    return len(frame) + FRAME_COST_BYTES
