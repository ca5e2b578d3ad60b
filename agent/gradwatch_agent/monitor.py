"""The `Monitor` that `watch` returns: the calls of a trainer.

Nothing here raises into the trainer, blocks it or waits for a device, whatever it is given.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from gradwatch_agent.collect.episodes import put_off, tell_numbers
from gradwatch_agent.collect.host import LOGGER, PHASES, to_float
from gradwatch_agent.collect.phases import TIMED, Phase
from gradwatch_agent.cycle import UpdateCycle
from gradwatch_agent.exits import reason_of
from gradwatch_agent.guard import guarded, is_strict, note_own_error
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from gradwatch_agent.collect.profile import Capture
    from gradwatch_agent.cycle import Looked
    from gradwatch_contracts.messages import Scalar

NORMAL, MINIMAL = Level.NORMAL, Level.MINIMAL


class Monitor(UpdateCycle):
    """The agent of one run. Make it with `watch`.

    Every method may be called at any time and in any order, all in one thread, the one that calls `step`; `log` of numbers may
    be called in any. What cannot be used is told in the run's data or by one
    log line. `level` is the telemetry level of the running update, `update` its number.
    """

    @property
    def should_stop(self) -> bool:
        """Whether someone asked this run to stop. Looking at it is what lets others ask: nothing is ever killed.

        With several ranks always False without `watch(agree=…)`, and with it the same on all of them: it is called at each
        look, so all ranks must look equally often.
        """
        try:
            return self.actions.should_stop()
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "Monitor.should_stop", error)
            return False

    @guarded
    def on_command(self, verb: str, handler: Callable[[dict[str, Scalar]], object], /) -> None:
        """Offer a command: "checkpoint", or a word of your own. Without this nobody can ask the run for it.

        `handler` is called between two updates, in this thread, with the command's arguments; what it returns is shown as the
        outcome, what it raises as the failure, and training goes on. Anew for the same word: the newest holds.
        """
        self.actions.offer(verb, handler)

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
        actions: object = None,
        normalizer: object = None,
        obs_clip: object = None,
        **unknown: object,
    ) -> None:
        """Observe what was collected, once or several times an update.

        Tensors, numpy arrays or sequences of any one shape, of floats, integers or booleans; reduced at once where they
        are. `values` and `returns` of one shape also give the explained variance. `observations` may be a dict.
        `actions`: as the action space of `watch` has them. `normalizer`: mean and variance of each feature of the observations
        as a pair or as attributes `mean` and `var`, when the observations are not normalised yet. `obs_clip`: the bound at
        which they were clipped.
        """
        begin = time.perf_counter_ns()
        if not self._open or self._collected < NORMAL:
            return
        self.callers.look()
        if unknown or positional:
            self._hints.say_unknown("rollout", unknown, len(positional))
        tensors = {"reward.step": rewards, "value.pred": values, "value.target": returns, "adv.raw": advantages}
        if "rollout" in self._unfit:
            said = {"rewards": rewards, "values": values, "returns": returns, "advantages": advantages}
            self._describe("rollout", {**said, "observations": observations})
        self._rows.harvest()
        self._measure().rollout(tensors, observations, actions=actions, normalizer=normalizer, obs_clip=obs_clip)
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
        std: object = None,
        **unknown: object,
    ) -> None:
        """Observe one minibatch, before its optimizer step.

        Float tensors of one shape and device: `new_logp`, `old_logp`, `values`, `returns`, `advantages`; `entropy` too,
        or one number, or {head: either}. `mask`: bool of that shape, False where a sample does not count. `clip`: the
        bound of |ratio - 1|. `loss`: one number. `actions`: one or several numbers per sample, shown beside the worst
        ratios at DEBUG.
        """
        begin = time.perf_counter_ns()
        looked = self._looked
        try:  # what `guarded` does, without passing ten arguments on
            if looked is None or unknown or positional:
                if not self._open or self._collected < NORMAL:
                    return
                looked = self._look(unknown, len(positional))
                if "ppo" in self._unfit:
                    said = {"new_logp": new_logp, "old_logp": old_logp, "entropy": entropy, "values": values}
                    said.update(returns=returns, advantages=advantages, clip=clip, mask=mask, loss=loss)
                    self._describe("ppo", said)
            policy, gradients, exemplars = looked
            if gradients.asks:
                gradients.minibatch()
            given = (new_logp, old_logp, values, returns, advantages, entropy, mask)
            if not policy.repeat(given, clip, loss):
                policy.observe(given, clip, loss)
            if exemplars is not None:
                exemplars.observe(policy.minibatches - 1, (new_logp, old_logp, mask, actions, values, advantages))
            if std is not None:
                self._observe_std(std)
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "Monitor.ppo", error)
        self._agent_ns += time.perf_counter_ns() - begin

    def _look(self, unknown: Mapping[str, object], nameless: int) -> Looked:
        """Do what `ppo` does once an update, and return what its further calls need."""
        if unknown or nameless:
            self._hints.say_unknown("ppo", unknown, nameless)
        self.callers.look()
        self._rows.harvest()
        measurement = self._measure()
        policy, gradients = measurement.policy, measurement.gradients
        if not policy.minibatches and policy.stepped and not policy.off_policy:
            self._note_late()
        debug = self._collected >= Level.DEBUG and self._settings.switches.on("exemplars")
        looked = policy, gradients, measurement.exemplars if debug else None
        self._looked = None if self._rows.pending else looked  # a row under way is looked for at every call
        return looked

    def _observe_std(self, std: object) -> None:
        """The standard deviations of the policy in a minibatch."""
        begin, switches = time.perf_counter_ns(), self._settings.switches
        if switches.on("action_std"):
            self._measure().deviations.observe(self._tally, std)
            switches.charge("action_std", time.perf_counter_ns() - begin)

    @guarded
    def recurrent(
        self, /, h: object = None, c: object = None, phase: str = "update", reset: object = None, **unknown: object
    ) -> None:
        """Observe a recurrent state: of an LSTM `h` and `c`, or the pair as `h`; of a GRU `h` alone.

        Float tensors of any shape, which may change from call to call. `phase`: "rollout" for a state met while collecting,
        "update" for one of a minibatch; the two are told apart because only a stale rollout state explains a difference.
        `reset`: per sequence, whether an episode begins here, so that `h`, as it goes into the network, has to be 0.
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
        self._measure().recurrent(h, c, phase, reset)
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

    def phase(self, name: str = "", *positional: object, **unknown: object) -> Phase:
        """Time a block: `with mon.phase("rollout"): …`, or "update", "eval", "checkpoint". The blocks of an update add up."""
        try:
            if isinstance(name, str) and name in TIMED and not positional and not unknown:
                return Phase(self._phases, name)
            self._hints.say_wrong_word("phase(…)", (name, *positional, *unknown) if positional or unknown else name, TIMED)
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "Monitor.phase", error)
        return Phase(self._phases, None)

    def step(
        self,
        /,
        env_steps: int | None = None,
        episode_returns: object = None,
        *positional: object,
        episode_lengths: object = None,
        truncated: object = None,
        eval_return: object = None,
        **scalars: object,
    ) -> None:
        """End the update: queue its row, apply what the daemon wants from the next update on.

        `env_steps`: environment steps since the start of the run. `episode_returns`: returns of the episodes that ended in
        this update (sequence, array, tensor or one number); `episode_lengths`: their steps; `truncated`: for each, whether a
        limit cut it off. `eval_return`: returns of evaluation episodes, in the updates that have some.
        """
        begin = time.perf_counter_ns()
        if not self._open:
            return
        self.callers.look()
        try:
            try:
                if self.level >= MINIMAL:
                    if scalars or positional:
                        self._take_other(positional, scalars)
                    if episode_returns is not None:
                        self._tell_numbers("episode.return", episode_returns)
                    if episode_lengths is not None:
                        self._tell_numbers("episode.length", episode_lengths)
                    if truncated is not None:
                        self._tell_numbers("episode.truncated", truncated)
                    if eval_return is not None:
                        self._tell_numbers("episode.eval_return", eval_return)
            finally:  # the row goes out, whatever was wrong with these
                try:
                    self._finish(begin, 0, env_steps)
                except BaseException as error:
                    self._lose(error)
                    raise
                self._rows.harvest()
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
        capture = start_capture(updates, directory, update, bool(stacks), self._tell_profile, self._capture)
        self._hold(capture)
        return capture

    @guarded
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

    def _take_other(self, positional: tuple[object, ...], scalars: dict[str, object]) -> None:
        """What `step` was given beside its own arguments."""
        if positional:
            self._hints.say_nameless_step(len(positional))
        self._user.put(scalars)

    def take_unseen_steps(self) -> None:
        """Steps of the running update were compiled, and our hooks told before it began, or were not there."""
        if self._measurement is not None:
            self._measurement.gradients.compiled = self._measurement.gradients.asks = True

    def _tell_numbers(self, column: str, values: object) -> None:
        """Take numbers from wherever they are."""
        if put_off(self._tally, column, values):
            return
        here = to_float(values) is not None or sys.modules.get("torch") is None
        if here or not self._measure().numbers(column, values):
            tell_numbers(self._tally, column, values)

    def _tell_profile(self, text: str, detail: dict[str, Scalar]) -> None:
        """Say how a capture ended."""
        LOGGER.log(logging.WARNING if "reason" in detail else logging.INFO, "gradwatch: %s", text)
        self._outbox.put_event("note", self.update, self._clock_ns + time.monotonic_ns(), text, detail)
