"""The life of a monitor: it opens, one update follows another, it closes; each update becomes a row.

Nothing here raises into the trainer, blocks it or waits for a device. `open` alone may raise, as a part of `watch`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from operator import is_
from types import MappingProxyType
from typing import TYPE_CHECKING, Union

from gradwatch_agent.actions import Actions
from gradwatch_agent.collect.blame import Blame
from gradwatch_agent.collect.callers import Callers
from gradwatch_agent.collect.env_steps import read_steps
from gradwatch_agent.collect.host import UNFIT, Hints, Tally, UserScalars
from gradwatch_agent.collect.memory import HostMemory
from gradwatch_agent.collect.phases import PROFILE, PhaseTimes
from gradwatch_agent.collect.rows import RowMaker, RowQueue, Waiting, reason_of_loss
from gradwatch_agent.coverage import StartUp
from gradwatch_agent.exits import describe
from gradwatch_agent.governor import Taken
from gradwatch_agent.guard import guarded, is_strict, note_own_error
from gradwatch_agent.inbox import RECORD_BYTES, Draft
from gradwatch_agent.overhead import Overhead
from gradwatch_agent.process import disable_in_child
from gradwatch_agent.tracing import Tracing
from gradwatch_contracts import limits
from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Level, Verb
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gradwatch_agent.arguments import Settings
    from gradwatch_agent.collect.exemplars import ExemplarCollector
    from gradwatch_agent.collect.gradients import GradientCollector
    from gradwatch_agent.collect.measurement import Measurement, Underway
    from gradwatch_agent.collect.phases import Pause
    from gradwatch_agent.collect.policy import PolicyCollector
    from gradwatch_agent.collect.profile import Capture
    from gradwatch_agent.desired import DesiredState
    from gradwatch_agent.exits import Exits
    from gradwatch_agent.inbox import Record
    from gradwatch_agent.link import Link
    from gradwatch_agent.outbox import Outbox
    from gradwatch_contracts.messages import Command, Result, Scalar

MINIMAL = Level.MINIMAL
BOX_GONE = "queue full: black box"
NOTHING: Mapping[str, int] = MappingProxyType({})
"""What optional collectors took in an update in which none ran."""

Looked = tuple["PolicyCollector", "GradientCollector", Union["ExemplarCollector", None]]
"""Where the minibatches of the running update go; the last of them only at DEBUG."""


class UpdateCycle:
    """What a monitor is beside its calls. `level` is the telemetry level of the running update, `update` its number."""

    def __init__(self, settings: Settings, outbox: Outbox, desired: DesiredState, link: Link | None, exits: Exits) -> None:
        self.run = settings.run
        self.update = settings.update_start
        self.level = Level.OFF
        self._collected = Level.OFF
        self._settings = settings
        self._outbox, self._desired, self._link, self._exits = outbox, desired, link, exits
        self._hints = Hints()
        self.callers = Callers(self._hints)
        self.actions = Actions(outbox, self._hints, self._tell_verbs, settings.world, settings.agree)
        self.actions.verbs.add(Verb.DUMP.value, self._dump)
        self._tracing = Tracing(settings.run, self.actions, outbox)
        if self._tracing.possible(settings.modules):
            self.actions.verbs.add(Verb.PROFILE.value, self._begin_trace, lambda id_: self._end_capture())
        self._maker = RowMaker(StartUp(settings.run, settings.modules, settings.action_space).say, self._fail_row)
        self._rows = RowQueue(outbox, self._maker, sync=settings.sync)
        self._made_ns = 0
        """Of what making rows has taken, what is told already."""
        outbox.box = self._maker.tables
        outbox.fail = self._fail_row
        self._user = UserScalars(self._hints, self._stage_scalar)
        self._tally = Tally()
        self._measurement: Measurement | None = None
        self._looked: Looked | None = None
        """What `ppo` works with for the rest of the running update; None before it looked, and when nothing is measured."""
        self._capture: Capture | None = None
        self._blame = Blame()
        self._unfit: set[str] = set()
        """Calls whose arguments could not all be measured in an update that ended; their next call is described, once."""
        self._late_updates = 0
        self._phases = PhaseTimes(self._tell_pause)
        self._memory: HostMemory | None = None
        self._agent_ns = 0
        self._clock_ns = time.time_ns() - time.monotonic_ns()
        self._stepped_ns = time.perf_counter_ns()
        self._overhead = None if settings.overhead is None else Overhead(settings.overhead, settings.switches, outbox)
        self._open = self.refused = False

    @property
    def active(self) -> bool:
        """Whether anything is measured: False after `close`, with GRADWATCH_MODE=off and in a forked child."""
        return self._open

    def watches(self, settings: Settings) -> bool:
        """Whether this monitor is already what `settings` asks for."""
        mine, theirs = self._settings.modules, settings.modules
        return self._open and self.run == settings.run and len(mine) == len(theirs) and all(map(is_, mine, theirs))

    @guarded
    def follow(self, settings: Settings) -> None:
        """`watch` is called again for this model: take its optimizers, also in the place of those before."""
        if self._measurement is not None:
            for optimizer in settings.optimizers:
                self._measurement.gradients.follow(optimizer)
        mine = self._settings
        if (settings.level, settings.updates_total) != (mine.level, mine.updates_total):
            self._hints.say("watch", f"run {self.run!r} is watched already: of this watch() only the optimizers are taken.")

    @guarded
    def close_with(self, error: BaseException | None, reason: str) -> None:
        """See `exits.Closable`."""
        if not self._open:
            return
        deadline = time.monotonic() + limits.CLOSE_S
        try:
            self._end_capture()
            self._say_last(error)
            self.actions.close(self.update)
            reason = "stopped" if error is None and self.actions.stopped else reason
        except Exception as own:
            note_own_error(self, "Monitor.close", own)
        finally:
            self._open, self._looked = False, None
            self._exits.remove(self)
            self._let_go()
            if self._link is not None:
                self._link.close(max(0.0, deadline - time.monotonic()), reason)

    def disable(self) -> None:
        """Become inert: we are in a forked child. Nothing is let go there, since freeing it could touch the device."""
        self._open, self._looked = False, None
        if self._measurement is not None:
            self._measurement.detach()

    def _let_go(self) -> None:
        """Take our hooks out of the trainer's objects and keep none of them alive: a closed monitor may live for long."""
        if self._measurement is not None:
            self._measurement.detach()
        self._measurement = self._looked = None
        if self._memory is not None:
            self._memory.close()
        self._settings = replace(self._settings, modules=(), optimizers=(), probe=None)
        self._tally = Tally()

    def expect_none(self, calls: Collection[str]) -> None:
        """Before the first update ends: nobody makes these calls in this run, see `Catalogue`."""
        self._maker.expect_none(calls)

    def take_signals(self, values: Mapping[str, float]) -> None:
        """What the script itself computed, as the columns or signals that it is. What we measured ourselves stays."""
        if self._open and self._collected >= Level.NORMAL:
            for name, value in values.items():
                if (name, "") not in self._tally.parts:
                    self._tally.parts[name, ""] = (value,)

    @guarded
    def take_entropy(self, entropy: object) -> None:
        """Of a minibatch whose gradient is there already, as `ppo(entropy=)` takes it; of the rest of it nothing is known."""
        begin = time.perf_counter_ns()
        if self._open and self._collected >= Level.NORMAL:
            self._measure().policy.observe((None, None, None, None, None, entropy, None))
            self._agent_ns += time.perf_counter_ns() - begin

    def open(self) -> None:
        """Place the hooks and begin the first update; called once, by `watch`, which may raise."""
        self._open = True
        self._memory = HostMemory() if self._settings.switches.on("host_memory") else None
        if self._settings.modules or self._settings.optimizers or self._settings.probe is not None:
            self._measure()
        self._begin()
        self._exits.add(self)
        disable_in_child(self)

    def _advance(self, begin_ns: int) -> None:
        """Go on to the next update, whatever happened to this one."""
        try:  # what `guarded` does, in one function less
            if self._capture is not None:
                self._capture.boundary()
                self._resume()
            self.update += 1
            self._begin()
            self._stepped_ns = begin_ns
            self._agent_ns += time.perf_counter_ns() - begin_ns
            if self._open and not self.actions.commands.idle:  # after the agent's time: what a command does was asked for
                self.actions.boundary(self.update, self._clock_ns + time.monotonic_ns())
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "UpdateCycle._advance", error)

    def _begin(self) -> None:
        """Begin update `self.update` at the level that holds from now on, and answer for what changed."""
        self._looked = None
        if self.refused:
            self._open = False
            self._exits.remove(self)
            self._let_go()
            return
        desired, settings = self._desired, self._settings
        if desired.wanted is not desired.settled:
            self.level, notes = desired.boundary(self.update)
            for note in notes:
                self._outbox.put_result(note.id, note.state, note.update, note.reason)
        collected = level = self.level
        if settings.collect_every > 1 and settings.thins(self.update, level):
            collected = min(level, MINIMAL)
        self._collected = collected
        if settings.switches.spent_ns:
            settings.switches.take_spent_ns()
        if self._overhead is not None and self._overhead.rests:
            self._overhead.begin(self.update, collected)
        self._tally = Tally()
        if self._measurement is not None:
            self._measurement.begin(self._tally, self._collected)

    def _finish(self, now_ns: int, flags: int, env_steps: object = None) -> None:
        """Turn the running update into a row, when its values have arrived. Who calls tells what fails by `_lose`: around the
        call, since Ctrl-C may land as this begins."""
        level, tally = self.level, self._tally
        underway, lost = None, False
        switches, measurement = self._settings.switches, self._measurement
        if self._phases.spent:
            self._phases.tell(tally if level >= MINIMAL else None)
        if level >= MINIMAL:
            if measurement is not None:
                underway, lost = self._bring_over(measurement)
                flags = flags or RowFlag.SKIPPED * measurement.idle
                self._agent_ns += measurement.take_spent_ns()
            memory = self._memory
            if memory is not None and "host_memory" not in switches.resting:
                if now_ns < memory.fresh_until_ns:
                    tally.parts["sys.host_bytes", ""] = memory.part
                else:
                    begin = time.perf_counter_ns()
                    updates = memory.tell(tally, self.update, now_ns)
                    switches.charge("host_memory", time.perf_counter_ns() - begin, updates)
            if switches.off:
                switches.refuse(tally, self._collected)
            if self._user.refused:
                for key, status in self._user.take_refused().items():
                    tally.refuse("user", status, key)
            if tally.reasons and not UNFIT.isdisjoint(tally.reasons.values()):
                self._unfit.update(COLUMNS[name].call for (name, _), status in tally.reasons.items() if status in UNFIT)
            update_ms = (now_ns - self._stepped_ns) / 1e6
            tally.parts["sys.update_ms", ""] = (update_ms,)
            made_ns = self._outbox.made_ns  # on another thread, but in the trainer's interpreter
            agent_ms = (self._agent_ns + made_ns - self._made_ns) / 1e6
            self._made_ns = made_ns
            tally.parts["sys.agent_ms", ""] = (agent_ms,)  # as for update_ms: from the last step() to this one
            if self._collected is level and not flags and self._overhead is not None:
                spent_ns = switches.take_spent_ns() if switches.spent_ns else NOTHING
                self._overhead.judge(self.update, level, Taken(update_ms, agent_ms, spent_ns))
        self._agent_ns = 0
        steps = env_steps if isinstance(env_steps, int) and 0 <= env_steps < 2**63 else read_steps(env_steps, self._hints)
        t_ns = self._clock_ns + time.monotonic_ns()
        user, thinned = self._user.take(), self._collected < level
        resting = switches.resting
        self._rows.put(Waiting(self.update, t_ns, steps, level, flags, tally, user, underway, lost, thinned, resting))

    def _lose(self, error: BaseException) -> None:
        """Tell that the update became no row."""
        self._outbox.lose(1, reason_of_loss(error))

    def _bring_over(self, measurement: Measurement) -> tuple[Underway | None, bool]:
        """Queue the copy of what was measured on devices; whether its values are lost because none could be queued."""
        try:
            return measurement.finish()
        except BaseException as error:
            measurement.abandon()  # half of this update must not become a part of the next
            if not isinstance(error, Exception):
                raise
            for call in ("ppo", "rollout", "recurrent", "clip", "step"):
                measurement.refuse(call, Status.OUR_ERROR)
            if is_strict():
                raise
            note_own_error(self, "Monitor.step", error)
            return None, False
        finally:
            self._blame.refuse_failed(self, measurement)

    def _say_last(self, error: BaseException | None) -> None:
        """Pack the unfinished update, then tell of the exception, then wait a little for copies under way."""
        started = self._user.started or self._tally.parts or self._tally.reasons
        if started or (self._measurement is not None and self._measurement.touched):
            if error is None and self.update == self._settings.update_start:
                self._hints.say("step", "step() was never called, so all is one update. Call mon.step() after each update.")
            try:
                self._finish(time.perf_counter_ns(), RowFlag.PARTIAL)
            except BaseException as own:
                self._lose(own)
                raise
        self._rows.drain(limits.CLOSE_S / 2)  # the rest is for the daemon's acks
        if error is not None:
            text, detail = describe(error)
            kind = "exception" if isinstance(error, Exception) else "note"
            self._outbox.put_event(kind, self.update, self._clock_ns + time.monotonic_ns(), text, detail)
            if kind == "exception":
                self._outbox.put_later(Draft(RECORD_BYTES, self._maker.tables, BOX_GONE))

    def _dump(self, command: Command, update: int) -> None:
        """Send the black box, the norms of every tensor in the last updates, and end the command with what it holds. After the
        rows put so far, as it is the thread that makes them that keeps it."""

        def make() -> tuple[Record, ...]:
            held, tables = self._maker.freeze()
            return (*tables, *self.actions.last_word(command.id, "ended", update, held))

        def otherwise() -> tuple[Result, ...]:
            return self.actions.last_word(command.id, "rejected", update, "failed: the black box could not be sent")

        self._outbox.put_later(Draft(RECORD_BYTES, make, BOX_GONE, otherwise))
        self.actions.commands.hand_over(command.id)

    def _fail_row(self, error: Exception) -> None:
        """Making a row, or the tables of the black box, failed; the trainer is not told, but in our tests."""
        if is_strict():
            raise error
        note_own_error(self, "Monitor.row", error)

    def tell_pause(self, connection: int) -> None:
        """Say that an evaluation or a checkpoint goes on. Called on the link thread, which is the one that is not in it."""
        self._phases.tell_pause(connection, time.perf_counter_ns())

    def _tell_pause(self, pause: Pause, over: bool, spent_ns: int) -> None:
        t_ns, spent_s = self._clock_ns + time.monotonic_ns(), spent_ns / 1e9
        text = f"{pause.name} ended after {spent_s:.1f} s" if over else f"{pause.name} goes on since {spent_s:.1f} s"
        detail: dict[str, Scalar] = {"phase": pause.name, "n": pause.n, "over": over, "seconds": spent_s}
        self._outbox.put_event("phase", self.update, t_ns, text, detail)

    def _describe(self, call: str, given: Mapping[str, object]) -> None:
        """Tell the trainer's author what `call` is given: in the data stands only why it is missing."""
        self._unfit.discard(call)
        self._hints.say_unfit(call, given)

    def _note_late(self) -> None:
        """An optimizer stepped before the first minibatch of an update was seen: once may be a warm-up of the trainer's."""
        self._late_updates += 1
        if self._late_updates > 1:
            self._hints.say(
                "ppo late",
                "an optimizer stepped before the first ppo() of the update, so the policy that collected is never seen and "
                "rollout_mismatch stays blind. Call mon.ppo() before optimizer.step().",
            )

    def _begin_trace(self, command: Command, update: int) -> None:
        """Record updates for a command; it ends when the trace is sent."""
        self._hold(self._tracing.begin(command, update, self._capture))

    def _hold(self, capture: Capture) -> None:
        """A capture has begun: that updates take long in it is no fault of theirs, and the daemon hears of it at once."""
        self._capture = capture
        self._phases.pause(PROFILE, time.perf_counter_ns(), capture, early=True)

    def _resume(self) -> None:
        if self._capture is not None and not self._capture.running:
            self._phases.resume(time.perf_counter_ns(), self._capture)

    def _end_capture(self) -> None:
        if self._capture is not None:
            self._capture.stop()
            self._resume()

    def _tell_verbs(self) -> None:
        """The trainer offers a command that the daemon may not know of."""
        if self._link is not None:
            self._link.greet_again()

    def _measure(self) -> Measurement:
        """The device side, made when it is first needed."""
        if self._measurement is None:  # not at the top: it imports torch
            from gradwatch_agent.collect.measurement import Measurement

            self._measurement = Measurement.of(self._settings, self._on_own_error)
            self._settings = replace(self._settings, optimizers=())  # one that is replaced is not to be kept alive
            self._maker.names = self._measurement.gradients.names
            self._measurement.begin(self._tally, self._collected)
        return self._measurement

    def _stage_scalar(self, key: str, value: object) -> bool:
        """Take a tensor given to `log`; False when it is none."""
        return sys.modules.get("torch") is not None and self._measure().scalar("user", key, value)

    def _on_own_error(self, place: str, text: str) -> None:
        """Tell the daemon of a failure of ours; see guard."""
        short = text[-limits.TRACEBACK_CHARS_MAX :]
        self._outbox.put_event("agent_error", self.update, self._clock_ns + time.monotonic_ns(), short, {"place": place[:256]})
