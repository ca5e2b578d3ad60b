"""Rows like those of a healthy PPO run at NORMAL, and a bare ZeroMQ sender for them: nothing here is the agent.

Every column of the registry that needs no subject is there, with what the agent leaves out at NORMAL left out for the same
reason. The numbers are different in every row.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import zmq

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.columns import WIDTH, Kind, Schema, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from gradwatch_contracts.connection import Connection

SCHEMA = Schema.of([spec.column() for spec in COLUMNS.values() if spec.name != "user"])
SAMPLES_AN_UPDATE = 2048.0
CENTRES = {
    "policy.logratio": (-0.004, 0.09),
    "policy.logratio.absmax": (0.3,),
    "policy.ratio.max": (1.3,),
    "policy.ratio.min": (0.75,),
    "policy.ratio.first_mb_dev": (1e-7,),
    "policy.kl.k3": (0.004, 0.02),
    "policy.kl.k3.last": (0.005,),
    "policy.kl.k3.max": (0.006,),
    "policy.clipped": (80.0,),
    "policy.entropy": (0.6, 0.03),
    "policy.entropy.limit": (0.6931471805599453,),
    "grad.norm": (0.4, 0.08),
    "grad.norm.max": (0.6,),
    "grad.clip_limit": (0.5,),
    "grad.tensors": (192.0,),
    "grad.vanishing": (0.0,),
    "grad.exploding": (0.0,),
    "grad.tensor_norm.min": (1e-3,),
    "grad.tensor_norm.max": (0.4,),
    "value.error": (0.0, 0.5),
    "rnn.h": (0.0, 0.3),
    "rnn.h.saturated": (20.0,),
    "opt.skipped": (0.0,),
    "episode.return": (120.0, 30.0),
    "opt.steps": (16.0,),
    "opt.lr": (2.5e-4,),
}
"""Typical values: (mean, standard deviation) of moments, else (value,). Everything else is about 1."""

FIXED = frozenset({"policy.entropy.limit", "opt.steps", "opt.lr", "grad.tensors", "grad.clip_limit"})


def values_of(rng: np.random.Generator, n: int) -> np.ndarray:
    """f64[n, slots], every row different by 10 %."""
    values = np.zeros((n, SCHEMA.slots))
    for column, at in zip(SCHEMA.columns, SCHEMA.offsets, strict=True):
        wiggle = np.ones(n) if column.name in FIXED else np.exp(0.1 * rng.standard_normal(n))
        if column.kind is Kind.MOMENTS:
            mean, std = CENTRES.get(column.name, (1.0, 1.0))
            values[:, at] = SAMPLES_AN_UPDATE
            values[:, at + 1] = mean * wiggle
            values[:, at + 2] = SAMPLES_AN_UPDATE * (std * wiggle) ** 2
        elif not column.name.endswith(("nonfinite", "nonfinite_mb", "violations", "dormant")):
            values[:, at] = CENTRES.get(column.name, (1.0,))[0] * wiggle
    return values


def status_of_row() -> bytes:
    """u8[columns]: what NORMAL does not collect, and first minibatches of faults that were not."""
    return bytes(
        Status.LEVEL
        if COLUMNS[column.name].level > Level.NORMAL
        else Status.UNDEFINED
        if column.name.endswith("nonfinite_mb")
        else Status.MEASURED
        for column in SCHEMA.columns
    )


def slots_of(name: str) -> slice:
    """Where a column lies in a row."""
    for column, at in zip(SCHEMA.columns, SCHEMA.offsets, strict=True):
        if column.name == name:
            return slice(at, at + WIDTH[column.kind])
    raise KeyError(name)


def frames(values: np.ndarray, batch: int, first: int = 0) -> list[tuple[int, bytes]]:
    """Ready SAMPLES frames of `batch` rows with the last seq of each; update and seq both count from `first`."""
    status, found = status_of_row(), []
    for start in range(0, len(values), batch):
        part = values[start : start + batch]
        n = len(part)
        update = np.arange(first + start, first + start + n, dtype="<i8")
        message = m.Samples(
            first + start,
            n,
            SCHEMA.id,
            update.tobytes(),
            (1_700_000_000_000_000_000 + update * 1_000_000).astype("<i8").tobytes(),
            (update * 2048).astype("<i8").tobytes(),
            bytes([Level.NORMAL]) * n,
            bytes(n),
            part.astype("<f8").tobytes(),
            status * n,
        )
        found.append((first + start + n - 1, encode(message)))
    return found


class Feed:
    """One session of a made-up trainer. `send` keeps to the window of WELCOME; `acked` is what the daemon has committed."""

    def __init__(self, connection: Connection, run: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.connect(connection.ingest)
        self.acked = -1
        self.window = 0
        session = f"{run}-{time.time_ns()}"
        hello = m.Hello(run, session, session, 0, 1, "localhost", 1, time.time_ns(), secret=connection.secret)
        self._socket.send(encode(hello))
        deadline = time.monotonic() + 30
        while not self.window and time.monotonic() < deadline:
            self.listen(100)
        if not self.window:
            raise RuntimeError("the daemon did not answer HELLO")
        self._socket.send(encode(m.SchemaMessage(SCHEMA.columns)))

    def send(self, last_seq: int, frame: bytes) -> None:
        """Send a frame whose last record is `last_seq`, as soon as the window lets it."""
        while last_seq - self.acked > self.window:
            self.listen(1000)
        self._socket.send(frame)

    def listen(self, timeout_ms: int) -> None:
        """Wait for messages of the daemon and take them all.

        Raises:
            RuntimeError: a refusal or a request to resend: a benchmark sends nothing that deserves either.
        """
        if not self._socket.poll(timeout_ms):
            return
        while True:
            try:
                message = decode(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            if isinstance(message, m.Welcome):
                self.window = message.window_records
            elif isinstance(message, m.Ack):
                self.acked = message.seq
            elif isinstance(message, m.Ping):
                self._socket.send(encode(m.Pong(message.t_ns)))
            elif isinstance(message, (m.Refuse, m.Rehello)):
                raise RuntimeError(f"the daemon said {message}")

    def wait(self, seq: int, seconds: float = 60.0) -> None:
        """Until everything up to `seq` is committed."""
        deadline = time.monotonic() + seconds
        while self.acked < seq:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no ack of {seq} within {seconds} s, last one {self.acked}")
            self.listen(100)

    def close(self) -> None:
        """Say goodbye."""
        self._socket.send(encode(m.Bye(self.acked, "finished")))
        self._socket.close()
        self._context.term()
