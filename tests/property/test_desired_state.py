"""Whatever the daemon wants and in whatever order, an escalation happens once and lasts as long as it says."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gradwatch_agent.desired import DesiredState
from gradwatch_contracts.control import Active, Desired, Level

LEVELS = st.sampled_from(Level)
KNOWN = {f"e{i}": Active(f"e{i}", Level(1 + i % 3), 1 + i) for i in range(6)}
"""An id always names the same escalation: the daemon makes it from content."""


class AgentAgainstDaemon(RuleBasedStateMachine):
    """The model is written from the boundary notes alone: who was applied when, and who ended when and why."""

    @initialize(base=LEVELS)
    def begin(self, base: Level) -> None:
        self.state = DesiredState(base)
        self.own_base = base
        self.wanted = Desired(0, base)
        self.held: tuple[Level, Level | None] = base, None
        self.update = 0
        self.level = base
        self.applied: dict[str, int] = {}
        self.ended: dict[str, int] = {}

    @rule(
        ids=st.sets(st.sampled_from(sorted(KNOWN))),
        base=LEVELS,
        pin=st.none() | LEVELS,
        step=st.integers(-2, 2),
        wait=st.integers(-2, 3),
        welcome=st.booleans(),
    )
    def receive(self, *, ids: set[str], base: Level, pin: Level | None, step: int, wait: int, welcome: bool) -> None:
        active = tuple(KNOWN[id_] for id_ in sorted(ids))
        desired = Desired(max(0, self.wanted.revision + step), base, pin, active, max(0, self.update + wait))
        self.state.receive(desired, welcome=welcome)
        if welcome or desired.revision > self.wanted.revision:
            self.wanted = desired

    @rule()
    def boundary(self) -> None:
        listed = {active.id for active in self.wanted.active}
        if self.update >= self.wanted.not_before:
            self.held = self.wanted.base if self.wanted.revision else self.own_base, self.wanted.pin
        base, pin = self.held
        self.level, notes = self.state.boundary(self.update)
        for note in notes:
            assert note.update == self.update
            if note.state == "applied":
                assert note.id not in self.applied, "applied twice"
                assert note.id in listed
                self.applied[note.id] = self.update
            else:
                assert note.state == "ended"
                assert note.id in self.applied
                assert note.id not in self.ended, "ended twice"
                self.ended[note.id] = self.update
                lasted = self.update - self.applied[note.id]
                if note.reason == "done":
                    assert lasted == KNOWN[note.id].updates
                else:
                    assert note.reason == "cancelled"
                    assert lasted < KNOWN[note.id].updates
                    assert note.id not in listed
        running = self.applied.keys() - self.ended.keys()
        for id_ in running:
            assert self.update - self.applied[id_] < KNOWN[id_].updates, "outlived its updates"
            assert id_ in listed, "runs although nobody wants it"
        held_back = listed - self.applied.keys()
        assert all(pin is not None and KNOWN[id_].level > pin for id_ in held_back)
        raised = max([base, *(KNOWN[id_].level for id_ in running)])
        assert self.level == (raised if pin is None else pin)
        self.update += 1

    @invariant()
    def level_changes_only_at_boundaries(self) -> None:
        assert self.state.level == self.level


TestDesiredState = AgentAgainstDaemon.TestCase
TestDesiredState.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
