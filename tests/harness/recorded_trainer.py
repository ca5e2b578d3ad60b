"""A trainer that plays a recording of the corpus: real rows, through the agent's own outbox, link and desired state.

It is what a page shows and steers, at the speed a test wants: `send(n)` hands over the next n updates, and applies what an
operator asked for at their boundaries, as a trainer would.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.corpus.recording import Recording, read_case
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.link import Link
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.process import Locator, identify, resolve_endpoint
from gradwatch_agent.row import Row
from gradwatch_contracts import messages as m
from gradwatch_contracts.control import Level
from harness.outgoing import put_row

if TYPE_CHECKING:
    from collections.abc import Mapping

CORPUS = Path(__file__).parents[1] / "data/corpus"
PACE_NS = 1_200_000_000
"""Between two updates by the trainer's clock: that of a run of some size, whatever the recording took."""


def recording(case: str, seed: int = 1) -> Recording:
    """A recording that lies in the repository."""
    return next(found for found in read_case(CORPUS / f"{case}.corpus") if found.seed == seed)


class RecordedTrainer:
    """One process of a trainer, as the daemon sees it. `skip` are updates that are lost on the way, with their reason."""

    def __init__(
        self, played: Recording, environ: Mapping[str, str], run: str, skip: Mapping[int, str] | None = None, **hello: Any
    ) -> None:
        part = played.parts[0]
        self.run, self.part, self.updates = run, part, len(part.update)
        self.sent = 0
        self._skip = dict(skip or {})
        self._start_ns = time.time_ns() - self.updates * PACE_NS
        self._values = part.values.astype("<f8")
        identity = identify(environ, host="localhost", pid=os.getpid(), parent_pid=os.getppid())
        endpoint, secret = resolve_endpoint("auto", environ)
        self.outbox = Outbox()
        self.desired = DesiredState(Level.NORMAL)
        self.level = Level.NORMAL
        given = {"updates_total": played.updates_total, "agent_version": "0.1.0", **hello}

        def greet() -> m.Hello:
            return m.Hello(
                run,
                f"{run}-launch",
                f"{run}-{identity.session}",
                0,
                1,
                "trainer-1",
                os.getpid(),
                self._start_ns,
                **given,
            )

        self.link = Link(endpoint, secret, greet, self.outbox, self.desired, locate=Locator("auto", environ))
        self.link.start()

    def send(self, count: int | None = None) -> None:
        """Hand over the next `count` updates, all that are left without one."""
        last = self.updates if count is None else min(self.updates, self.sent + count)
        for at in range(self.sent, last):
            update = int(self.part.update[at])
            self.level, notes = self.desired.boundary(update)
            for note in notes:
                self.outbox.put_result(note.id, note.state, note.update, note.reason)
            if update in self._skip:
                self.outbox.lose(1, self._skip[update])
                continue
            row = Row(
                update,
                self._start_ns + at * PACE_NS,
                int(self.part.env_steps[at]),
                int(self.level),
                int(self.part.flags[at]),
                self.part.schema,
                np.ascontiguousarray(self._values[at]).tobytes(),
                self.part.status[at].tobytes(),
            )
            put_row(self.outbox, row)
        self.sent = last

    def is_asked(self, id_: str) -> bool:
        """Whether the daemon wants this escalation of it now."""
        return any(active.id == id_ for active in self.desired.wanted.active)

    def wait(self, seconds: float = 30.0) -> None:
        """Until the daemon has committed everything."""
        deadline = time.monotonic() + seconds
        while not self.outbox.settled:
            assert time.monotonic() < deadline, f"{self.run}: {self.outbox.pending} records not acked: {self.link.refusal}"
            time.sleep(0.01)

    def finish(self) -> None:
        """As a trainer that closes its monitor."""
        self.link.close(20.0)
