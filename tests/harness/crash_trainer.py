"""A trainer that may be killed at any moment: numbered rows through the agent's own outbox, spool and link, under load.

`python crash_trainer.py RUN DIARY ROOM` sends until it is told to end by SIGTERM. ROOM is `roomy`, or `cramped`: then memory
and spool hold so little that rows are thinned and dropped; or `quiet`: it only sends what others left. DIARY gets, before and
after the fact, what the checker goes by: `s` the session, `p` the last record put (before it is), `a` the last one acked, `d`
the last one on the disk.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import sys
import time
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from gradwatch_agent.desired import DesiredState
from gradwatch_agent.inbox import Draft, size_of
from gradwatch_agent.link import Link
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.process import Locator, identify, resolve_endpoint
from gradwatch_agent.row import Row
from gradwatch_agent.spool.delivery import Delivery
from gradwatch_agent.spool.disk import Spool
from gradwatch_agent.spool.files import SessionDirectory
from gradwatch_agent.spool.spilling import SpillingOutbox
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.columns import Schema
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_agent.session import Outgoing

SCHEMA = Schema.of([COLUMNS["sys.update_ms"].column(), COLUMNS["user"].column("noise")])
CLOSE_S = 60.0
"""A life that ends by itself waits until everything is told."""


def noise(session: str, update: int) -> float:
    """The number that an update of a session must have: exact in the store's four bytes."""
    digest = blake2b(f"{session}/{update}".encode(), digest_size=4).digest()
    return float(int.from_bytes(digest[:3], "little"))


class Trainer:
    """One life."""

    def __init__(self, run: str, room: str) -> None:
        if room == "cramped":
            limits.SPOOL_SEGMENT_BYTES = 4_096
        bytes_max, spool_max = (64_000, 60_000) if room == "cramped" else (limits.OUTBOX_BYTES, limits.SPOOL_BYTES)
        identity = identify(os.environ, host="localhost", pid=os.getpid(), parent_pid=os.getppid())
        root = os.environ["GRADWATCH_SPOOL_DIR"]
        endpoint, secret = resolve_endpoint("auto", os.environ)
        self.session = identity.session
        self.greeting = m.Hello(
            run, identity.launch_id, identity.session, 0, 1, "localhost", os.getpid(), time.time_ns(), replay=False
        )
        self.memory = Outbox(bytes_max)
        files = SessionDirectory(os.path.join(root, run, identity.session))
        self.disk = Spool(files, lambda: replace(self.greeting, replay=True), spool_max)

        def connect(hello: Callable[[], m.Hello], records: Outgoing, desired: DesiredState) -> Link:
            return Link(endpoint, secret, hello, records, desired, locate=Locator("auto", os.environ))

        self.link = Link(
            endpoint,
            secret,
            lambda: self.greeting,
            SpillingOutbox(self.memory, self.disk, time.monotonic()),
            DesiredState(Level.NORMAL),
            locate=Locator("auto", os.environ),
            delivery=Delivery(root, run, connect, print),
        )

    def put(self, update: int) -> None:
        """Hand over one row."""
        values = struct.pack("<2d", float(update), noise(self.session, update))
        row = Row(update, time.time_ns(), update * 10, int(Level.NORMAL), 0, SCHEMA, values, b"\0\0")
        self.memory.put_draft(Draft(size_of(row), lambda: (row,)))


def main() -> None:
    run, diary_path, room = sys.argv[1:4]
    trainer, ending, pace = Trainer(run, room), [], random.Random(os.getpid())
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    diary = os.open(diary_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(diary, f"s {trainer.session}\n".encode())
    trainer.link.start()
    update, told = 0, (-1, -1)
    while not ending:
        for _ in range(0 if room == "quiet" else pace.randrange(1, 20)):
            os.write(diary, f"p {update}\n".encode())
            trainer.put(update)
            update += 1
        now = trainer.memory.acked_seq if trainer.disk.settled else -1, trainer.disk.last_seq
        if now != told:
            os.write(diary, f"a {now[0]}\nd {now[1]}\n".encode())
            told = now
        time.sleep(0.01)
    trainer.link.close(CLOSE_S)


if __name__ == "__main__":
    main()
