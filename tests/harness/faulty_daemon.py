"""A daemon in a process of its own that does wrong: it can be stopped and killed, be slow, be mute or answer garbage.

`python faulty_daemon.py ENDPOINT MODE` is that process; `FaultyDaemon` starts it, and does to it what operators and kernels do.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack
import zmq

sys.path.insert(0, str(Path(__file__).parents[1]))

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.control import Active, Desired, Level
from gradwatch_contracts.frame import decode_frame, encode_frame
from harness.router import FakeDaemon

if TYPE_CHECKING:
    from types import TracebackType

MODES = ("good", "slow", "mute", "garbage", "refusing", "newer", "older")
SLOW_S = 0.05
"""What the slow one takes for a frame of 32 rows: a trainer of 1,000 updates a second is then ahead of it."""

GARBAGE_FRAMES = 16
"""Frames of garbage for each that came."""


class FaultyDaemon:
    """The process, as a context manager. `mode`: good, slow (it answers late), mute (it answers nothing), garbage, refusing
    (a HELLO is refused for good), newer (it speaks another major), older (it lacks fields of WELCOME, and refuses what it does
    not know)."""

    def __init__(self, endpoint: str, mode: str = "good") -> None:
        self.endpoint = endpoint
        self._command = [sys.executable, __file__, endpoint, mode]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> FaultyDaemon:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "bound\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()  # a stopped process dies of this, too
            self._process.wait(10)
            if self._process.stdout is not None:
                self._process.stdout.close()

    def stop(self) -> None:
        """As Ctrl-Z does, or a cgroup that is frozen: it is there, and does nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `stop`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """As the kernel does when memory is out."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Answering(FakeDaemon):
    """A router that answers each frame as its mode says."""

    def __init__(self, endpoint: str, mode: str) -> None:
        super().__init__(endpoint)
        self._mode = mode
        self._chance = random.Random(1)

    def serve(self) -> None:
        """Answer until the process is killed."""
        router = zmq.Context().socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        router.bind(self.endpoint)
        print("bound", flush=True)
        peers: dict[bytes, str] = {}
        schemas: dict[bytes, set[str]] = {}
        while True:
            peer, frame = router.recv_multipart()
            if self._mode == "slow":
                time.sleep(SLOW_S)
            elif self._mode in ("refusing", "newer", "older"):
                for answer in self._foreign(peer, decode(frame), peers, schemas):
                    router.send_multipart([peer, answer])
                continue
            elif self._mode == "garbage":
                for parts in self._garbage():
                    router.send_multipart([peer, *parts])
            if self._mode != "mute":
                for reply in self._answer(peer, decode(frame), peers, schemas):
                    router.send_multipart([peer, encode(reply)])

    def _foreign(self, peer: bytes, message: m.Message, peers: dict[bytes, str], schemas: dict[bytes, set[str]]) -> list[bytes]:
        """What a daemon of another version says, or one that wants nothing of us."""
        if self._mode == "refusing":
            return [encode(m.Refuse("secret-wrong", "HELLO.secret"))]
        if self._mode == "newer":
            frame = bytearray(encode(m.Refuse("protocol-unsupported", "header.major: expected 2, got 1", (2,))))
            other = bytes(frame[:4]) + bytes([2]) + bytes(frame[5:])
            return [other] if self._chance.random() < 0.5 else [bytes(frame)]
        if isinstance(message, (m.Event, m.Table, m.Loss)):
            return [encode(m.Refuse("frame-unknown-type", "header.type", (1,), final=False))]
        answers = self._answer(peer, message, peers, schemas)
        return [_without(answer, "window_bytes") if isinstance(answer, m.Welcome) else encode(answer) for answer in answers]

    def _garbage(self) -> list[list[bytes]]:
        """Noise, broken frames, empty ones, several parts, and messages that lie."""
        chance, lies = self._chance, (m.Ack(2**62), m.Rehello(), m.Pong(-1), m.Refuse("frame-invalid", "no", (1,), final=False))
        good = encode(m.LevelMessage(Desired(chance.getrandbits(31), active=(Active("x", Level.DEBUG, 1),))))
        cut, flipped = good[: chance.randrange(len(good))], bytearray(good)
        flipped[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        found = [[cut], [bytes(flipped)], [b""], [good, good], [encode(chance.choice(lies))]]
        return found + [[chance.randbytes(chance.randrange(1, 2000))] for _ in range(GARBAGE_FRAMES - len(found))]


def _without(message: m.Message, field: str) -> bytes:
    """The frame of a message as a version wrote it that did not know the field."""
    kind, body = decode_frame(encode(message))
    given = msgpack.unpackb(body)
    del given[field]
    return encode_frame(kind, msgpack.packb(given))


if __name__ == "__main__":
    Answering(sys.argv[1], sys.argv[2]).serve()
