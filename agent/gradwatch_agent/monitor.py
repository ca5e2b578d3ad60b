"""The `Monitor` that `watch` returns: the calls of a trainer, and what each update of it becomes.

Nothing here raises into the trainer, blocks it or waits for a device, whatever it is given.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from gradwatch_agent.collect.blame import Blame
from gradwatch_agent.collect.episodes import tell_returns
from gradwatch_agent.collect.host import LOGGER, PHASES, Hints, Tally, UserScalars, to_float, whole
from gradwatch_agent.collect.rows import OUR_ERROR, RowQueue, Waiting
from gradwatch_agent.exits import describe, reason_of
from gradwatch_agent.guard import guarded, is_strict, note_own_error
from gradwatch_agent.process import disable_in_child
from gradwatch_contracts import limits
from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from types import TracebackType

    from gradwatch_agent.arguments import Settings
    from gradwatch_agent.collect.measurement import Measurement, Underway
    from gradwatch_agent.collect.profile import Capture
    from gradwatch_agent.desired import DesiredState
    from gradwatch_agent.exits import Exits
    from gradwatch_agent.link import Link
    from gradwatch_agent.outbox import Outbox
    from gradwatch_contracts.messages import Scalar

NORMAL, MINIMAL = Level.NORMAL, Level.MINIMAL


class Monitor:
    """The agent of one run. Make it with `watch`.

    Every method may be called at any time and in any order; what cannot be used is told in the run's data or by one
    log line. `level` is the telemetry level of the running update, `update` its number.
    """

    def __init__(self, settings: Settings, outbox: Outbox, desired: DesiredState, link: Link | None, exits: Exits) -> None:
        self.run = settings.run
        self.update = settings.update_start
        self.level = Level.OFF
        self._collected = Level.OFF
        self._settings = settings
        self._outbox, self._desired, self._link, self._exits = outbox, desired, link, exits
        self._hints = Hints()
        self._rows = RowQueue(outbox, sync=settings.sync)
        self._user = UserScalars(self._hints, self._stage_scalar)
        self._tally = Tally()
        self._measurement: Measurement | None = None
        self._capture: Capture | None = None
        self._blame = Blame()
        self._agent_ns = 0
        self._clock_ns = time.time_ns() - time.monotonic_ns()
        self._stepped_ns = time.perf_counter_ns()
        self._open = False
        self.refused = False

    @property
    def should_stop(self) -> bool:
        """Whether someone asked this run to stop. Always False with more than one rank: they would not stop together."""
        return False

    @property
    def active(self) -> bool:
        """Whether anything is measured: False after `close`, with GRADWATCH_MODE=off and in a forked child."""
        return self._open

    def watches(self, settings: Settings) -> bool:
        """Whether this monitor is already what `settings` asks for."""
        mine, theirs = self._settings.modules, settings.modules
        return self._open and self.run == settings.run and len(mine) == len(theirs) and all(map(_same, mine, theirs))

    @guarded
    def rollout(
        self,
        /,
        *positional: object,
        rewards: object = None,
        values: object = None,
        returns: object = None,
        advantages: object = None,
        observations: object = None,
        **unknown: object,
    ) -> None:
        """Observe what was collected, once or several times an update.

        Tensors, numpy arrays or sequences of any one shape, of floats, integers or booleans; reduced at once where they
        are. `values` and `returns` of one shape also give the explained variance. `observations` may be a dict.
        """
        begin = time.perf_counter_ns()
        if not self._open or self._collected < NORMAL:
            return
        if unknown or positional:
            self._hints.say_unknown("rollout", unknown, len(positional))
        tensors = {"reward.step": rewards, "value.pred": values, "value.target": returns, "adv.raw": advantages}
        self._rows.harvest()
        self._measure().rollout(tensors, observations)
        self._agent_ns += time.perf_counter_ns() - begin

    def ppo(
        self,
        /,
        *positional: object,
        new_logp: object = None,
        old_logp: object = None,
        entropy: object = None,
        values: object = None,
        returns: object = None,
        advantages: object = None,
        clip: object = None,
        actions: object = None,
        mask: object = None,
        loss: object = None,
        **unknown: object,
    ) -> None:
        """Observe one minibatch, before its optimizer step.

        Float tensors of one shape and device: `new_logp`, `old_logp`, `values`, `returns`, `advantages`; `entropy` too,
        or one number, or {head: either}. `mask`: bool of that shape, False where a sample does not count. `clip`: the
        bound of |ratio - 1|. `loss`: one number. `actions`: one or several numbers per sample, shown beside the worst
        ratios at DEBUG.
        """
        begin = time.perf_counter_ns()
        if not self._open or self._collected < NORMAL:
            return
        try:  # what `guarded` does, without passing ten arguments on
            if unknown or positional:
                self._hints.say_unknown("ppo", unknown, len(positional))
            self._rows.harvest()
            measurement = self._measure()
            measurement.gradients.minibatch()
            minibatch = measurement.policy.minibatches
            measurement.policy.observe(
                new_logp=new_logp,
                old_logp=old_logp,
                entropy=entropy,
                values=values,
                returns=returns,
                advantages=advantages,
                clip=clip,
                mask=mask,
                loss=loss,
            )
            if self._collected >= Level.DEBUG:
                measurement.exemplars.observe(
                    minibatch,
                    new_logp,
                    old_logp,
                    mask=mask,
                    actions=actions,
                    values=values,
                    advantages=advantages,
                )
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "Monitor.ppo", error)
        self._agent_ns += time.perf_counter_ns() - begin

    @guarded
    def recurrent(self, /, h: object = None, c: object = None, phase: str = "update", **unknown: object) -> None:
        """Observe a recurrent state: of an LSTM `h` and `c`, or the pair as `h`; of a GRU `h` alone.

        Float tensors of any shape, which may change from call to call. `phase`: "rollout" for a state met while collecting,
        "update" for one of a minibatch; the two are told apart because only a stale rollout state explains a difference.
        """
        begin = time.perf_counter_ns()
        if not self._open or self._collected < NORMAL:
            return
        if unknown:
            self._hints.say_unknown("recurrent", unknown)
        if phase not in PHASES:
            self._hints.say_wrong_word("recurrent(phase=…)", phase, PHASES)
            return
        self._rows.harvest()
        self._measure().recurrent(h, c, phase)
        self._agent_ns += time.perf_counter_ns() - begin

    @guarded
    def log(self, values: Mapping[str, object] | None = None, /, **scalars: object) -> None:
        """Send scalars with the row of the running update: numbers, or tensors of one element. The last one wins."""
        begin = time.perf_counter_ns()
        if not self._open or self.level < MINIMAL:
            return
        if values:
            self._user.put(values)
        self._user.put(scalars)
        self._agent_ns += time.perf_counter_ns() - begin

    def step(self, /, env_steps: int | None = None, episode_returns: object = None, **scalars: object) -> None:
        """End the update: queue its row, apply what the daemon wants from the next update on.

        `env_steps`: environment steps since the start of the run. `episode_returns`: returns of the episodes that ended in
        this update (sequence, array, tensor or one number).
        """
        begin = time.perf_counter_ns()
        if not self._open:
            return
        try:
            if self.level >= MINIMAL:
                if scalars:
                    self._user.put(scalars)
                if episode_returns is not None:
                    here = to_float(episode_returns) is not None or sys.modules.get("torch") is None
                    if here or not self._measure().returns(episode_returns):
                        tell_returns(self._tally, episode_returns)
            self._finish(begin, 0, env_steps)
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "Monitor.step", error)
        finally:
            self._advance(begin)

    def profile(self, /, updates: int = 3, directory: str | os.PathLike[str] = "profile", stacks: bool = False) -> Capture:
        """Record the next `updates` whole updates with `torch.profiler`, CPU and CUDA, into a trace file in `directory`.

        The rest of the running update is the profiler's warm-up. It slows training while it records, `stacks` (Python call
        stacks) most. How it ended is in the returned capture, in the log and in the run's events. May be used as `with`.

        Raises:
            GradwatchError: `invalid-argument`: the directory cannot be made or written to, a profiler runs already, or the
                monitor is closed. The one method that raises: nobody asks for a profile by accident.
        """
        from gradwatch_agent.collect.profile import start_capture

        update = self.update if self._open else None
        self._capture = start_capture(updates, directory, update, bool(stacks), self._tell_profile, self._capture)
        return self._capture

    def close(self) -> None:
        """End the run: an unfinished update is sent as partial, what is queued is sent for a second at most."""
        self.close_with(None, "closed")

    def __enter__(self) -> Monitor:
        """The monitor; leaving the block closes it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Tell of the exception that ends the block, if any, and close."""
        told = None if isinstance(error, SystemExit) else error
        self.close_with(told, reason_of(told) if told else "closed")

    @guarded
    def close_with(self, error: BaseException | None, reason: str) -> None:
        """See `exits.Closable`."""
        if not self._open:
            return
        try:
            if self._capture is not None:
                self._capture.stop()
            self._say_last(error)
        except Exception as own:
            note_own_error(self, "Monitor.close", own)
        finally:
            self._open = False
            self._exits.remove(self)
            if self._measurement is not None:
                self._measurement.detach()
            if self._link is not None:
                self._link.close(limits.CLOSE_S, reason)

    def disable(self) -> None:
        """Become inert: we are in a forked child, or the daemon refused the run."""
        self._open = False
        if self._measurement is not None:
            self._measurement.detach()

    def open(self) -> None:
        """Place the hooks and begin the first update; called once, by `watch`, which may raise."""
        self._open = True
        if self._settings.modules or self._settings.optimizers:
            self._measure()
        self._begin()
        self._exits.add(self)
        disable_in_child(self)

    @guarded
    def _advance(self, begin_ns: int) -> None:
        """Go on to the next update, whatever happened to this one."""
        if self._capture is not None:
            self._capture.boundary()
        self.update += 1
        self._begin()
        self._stepped_ns = begin_ns
        self._agent_ns += time.perf_counter_ns() - begin_ns

    def _begin(self) -> None:
        """Begin update `self.update` at the level that holds from now on, and answer for what changed."""
        if self.refused:
            self.disable()
            self._exits.remove(self)
            return
        self.level, notes = self._desired.boundary(self.update)
        self._collected = Level(min(self.level, MINIMAL)) if self._settings.thins(self.update, self.level) else self.level
        for note in notes:
            self._outbox.put_result(note.id, note.state, note.update, note.reason)
        self._tally = Tally()
        if self._measurement is not None:
            self._measurement.begin(self._tally, self._collected)

    def _finish(self, now_ns: int, flags: int, env_steps: object = None) -> None:
        """Turn the running update into a row, now or when its values arrive; a failure on the way is told as a LOSS."""
        try:
            waiting = self._pack(now_ns, flags, env_steps)
        except Exception:
            self._outbox.lose(1, OUR_ERROR)
            raise
        self._rows.put(waiting)

    def _pack(self, now_ns: int, flags: int, env_steps: object) -> Waiting:
        """The finished update, its values perhaps under way."""
        level, tally = self.level, self._tally
        underway, lost = None, False
        if level >= MINIMAL:
            underway, lost = self._bring_over(tally)
            for key, status in self._user.take_refused().items():
                tally.refuse("user", status, key)
            if self._measurement is not None and self._measurement.idle and not flags:
                flags = RowFlag.SKIPPED
            tally.add("sys.update_ms", ((now_ns - self._stepped_ns) / 1e6,))
            if self._measurement is not None:
                self._agent_ns += self._measurement.take_spent_ns()
            tally.add("sys.agent_ms", (self._agent_ns / 1e6,))  # as for update_ms: from the last step() to this one
        self._agent_ns = 0
        steps = env_steps if isinstance(env_steps, int) and 0 <= env_steps < 2**63 else whole(env_steps)
        t_ns = self._clock_ns + time.monotonic_ns()
        user, thinned = self._user.take(), self._collected < level
        return Waiting(self.update, t_ns, steps, level, flags, tally, user, underway, lost, thinned)

    def _bring_over(self, tally: Tally) -> tuple[Underway | None, bool]:
        """Queue the copy of what was measured on devices; whether its values are lost because none could be queued."""
        measurement = self._measurement
        if measurement is None:
            return None, False
        try:
            return measurement.finish()
        except Exception as error:
            measurement.abandon()
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
        started = self._user.values or self._tally.parts or self._tally.reasons
        if started or (self._measurement is not None and self._measurement.touched):
            self._finish(time.perf_counter_ns(), RowFlag.PARTIAL)
        self._rows.drain(limits.CLOSE_S)
        if error is not None:
            text, detail = describe(error)
            kind = "exception" if isinstance(error, Exception) else "note"
            self._outbox.put_event(kind, self.update, self._clock_ns + time.monotonic_ns(), text, detail)

    def _measure(self) -> Measurement:
        """The device side, made when it is first needed."""
        if self._measurement is None:  # not at the top: it imports torch
            from gradwatch_agent.collect.measurement import Measurement

            self._measurement = Measurement.of(self._settings, self._on_own_error)
            self._measurement.begin(self._tally, self._collected)
        return self._measurement

    def _stage_scalar(self, key: str, value: object) -> bool:
        """Take a tensor given to `log`; False when it is none."""
        return sys.modules.get("torch") is not None and self._measure().scalar("user", key, value)

    def _tell_profile(self, text: str, detail: dict[str, Scalar]) -> None:
        """Say how a capture ended."""
        LOGGER.log(logging.WARNING if "reason" in detail else logging.INFO, "gradwatch: %s", text)
        self._outbox.put_event("note", self.update, self._clock_ns + time.monotonic_ns(), text, detail)

    def _on_own_error(self, place: str, text: str) -> None:
        """Tell the daemon of a failure of ours; see guard."""
        short = text[-limits.TRACEBACK_CHARS_MAX :]
        self._outbox.put_event("agent_error", self.update, self._clock_ns + time.monotonic_ns(), short, {"place": place[:256]})


def _same(left: Any, right: Any) -> bool:
    return left is right
