"""A trainer without torch: rows through the agent's own outbox and link, with its own record of what it sent.

`python small_agent.py RUN UPDATES PACE_MS TRUTH_FILE`: each update has its number in `sys.update_ms` and random bits in
`user/noise`; TRUTH_FILE gets one JSON line per update, flushed, before the update is handed over.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import time

from gradwatch_agent.desired import DesiredState
from gradwatch_agent.inbox import Draft, size_of
from gradwatch_agent.link import Link
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.process import Locator, identify, resolve_endpoint
from gradwatch_agent.row import Row
from gradwatch_contracts import messages as m
from gradwatch_contracts.columns import Schema
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS

SCHEMA = Schema.of([COLUMNS["sys.update_ms"].column(), COLUMNS["user"].column("noise")])


class SmallAgent:
    """Outbox, link and desired state of one process, put together as the monitor does it."""

    def __init__(self, run: str, updates_total: int | None = None) -> None:
        identity = identify(os.environ, host="localhost", pid=os.getpid(), parent_pid=os.getppid())
        endpoint, secret = resolve_endpoint("auto", os.environ)
        started_ns = time.time_ns()
        self.outbox = Outbox()
        self.desired = DesiredState(Level.NORMAL)
        self.level = Level.NORMAL
        self.link = Link(
            endpoint,
            secret,
            lambda: m.Hello(
                run,
                identity.launch_id,
                identity.session,
                identity.rank,
                identity.world,
                identity.host,
                identity.pid,
                started_ns,
                updates_total=updates_total,
            ),
            self.outbox,
            self.desired,
            locate=Locator("auto", os.environ),
        )
        self.link.start()

    def boundary(self, update: int) -> None:
        """Before an update: apply what the daemon wants."""
        self.level, notes = self.desired.boundary(update)
        for note in notes:
            self.outbox.put_result(note.id, note.state, note.update, note.reason)

    def put(self, update: int, schema: Schema, values: bytes, status: bytes, flags: int = 0) -> None:
        """Hand over one row."""
        row = Row(update, time.time_ns(), update * 10, int(self.level), flags, schema, values, status)
        self.outbox.put_draft(Draft(size_of(row), lambda: (row,)))


def main() -> None:
    run, updates, pace_ms, truth_path = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    agent = SmallAgent(run, updates)
    noise = random.Random(7)
    with open(truth_path, "a", encoding="ascii") as truth:
        for update in range(updates):
            agent.boundary(update)
            time.sleep(pace_ms / 1000)
            value = struct.unpack("<f", struct.pack("<f", noise.gauss(0, 1)))[0]
            truth.write(json.dumps({"update": update, "noise": value, "level": int(agent.level)}) + "\n")
            truth.flush()
            agent.put(update, SCHEMA, struct.pack("<2d", float(update), value), b"\0\0")
    agent.link.close(float(os.environ.get("CLOSE_S", "20")))


if __name__ == "__main__":
    main()
