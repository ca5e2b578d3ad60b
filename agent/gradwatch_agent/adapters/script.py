"""A script that makes no call of ours: watched from its optimizers, its clipping and its SummaryWriter."""

from __future__ import annotations

import atexit
import functools
import os
import sys
from typing import TYPE_CHECKING, Any

from torch.compiler import is_dynamo_compiling as is_compiling

from gradwatch_agent.adapters.entropies import Entropies, look_at_entropies
from gradwatch_agent.adapters.meanings import Meanings
from gradwatch_agent.adapters.optimizers import Optimizers
from gradwatch_agent.adapters.parameters import OptimizerParameters
from gradwatch_agent.adapters.scalars import parse_table, read_number
from gradwatch_agent.adapters.update_rule import UpdateRule
from gradwatch_agent.arguments import name_seeded
from gradwatch_agent.collect.host import to_float
from gradwatch_agent.entry import watch
from gradwatch_agent.exits import EXITS
from gradwatch_agent.guard import guarded
from gradwatch_agent.monitor import Monitor
from gradwatch_contracts import limits
from gradwatch_contracts.launch import EVERY, PATCHES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import torch

    from gradwatch_agent.adapters.update_rule import Ended
    from gradwatch_agent.device.clip import Clip

EPISODES = {"charts/episodic_return": "episode_returns", "charts/episodic_length": "episode_lengths"}
"""CleanRL's tag of one finished episode → argument of `step`. Where they are used, global_step counts environment steps."""


OF_A_RANK = frozenset({"ChildFailedError", "ProcessRaisedException", "ProcessExitedException"})
"""What torchrun and `torch.multiprocessing.spawn` raise when a process of theirs failed."""

NEVER = ("rollout", "ppo", "recurrent")
"""Calls that a script without calls does not make."""


class ScriptWatch:
    """Does nothing until `arm`. Its monitor is made at the first gradient, when the optimizers are known; another one for
    another model."""

    def __init__(self) -> None:
        self.monitor: Monitor | None = None
        self._patches: Collection[str] = ()
        self._rule = UpdateRule(EVERY, EPISODES)
        self._said: set[str] = set()
        self._optimizers = Optimizers()
        self._early: dict[str, object] = {}
        self._config: dict[str, object] = {}
        self._episodes: dict[str, list[float]] = {}
        self._episode_at = 0.0
        """global_step of the last episode: environment steps, where that of other tags may count something else."""
        self._meanings, self._entropies = Meanings(), Entropies()
        self._started = self._compiled = self._waits = False
        self._hooks: Any = None
        self._next: Any = None

    def arm(self, patches: Collection[str], every: int = EVERY) -> None:
        """Look into torch from now on, at `launch.PATCHES` of these names. A second time changes nothing."""
        if self._patches:
            return
        self._patches, self._rule = patches, UpdateRule(every, EPISODES)
        if "gradients" in patches:
            from torch.optim import optimizer

            self._hooks = optimizer
            optimizer.Optimizer.__init__ = _noting(optimizer.Optimizer.__init__, self)  # type: ignore[method-assign]
            optimizer.register_optimizer_step_pre_hook(self._before_step)
            optimizer.register_optimizer_step_post_hook(self._after_step)
            atexit.register(self._say_unseen)
        if "entropies" in patches:
            look_at_entropies(self._on_entropy)

    def _on_own_error(self, place: str, text: str) -> None:
        if self.monitor is not None:
            self.monitor._on_own_error(place, text)

    @guarded
    def on_optimizer(self, optimizer: Any) -> None:
        """An optimizer was made. Its clipping is told here before it is told to the monitor, so that an update ends first."""
        from gradwatch_agent.device.clip import CLIP_WATCH

        if self._optimizers.meet(optimizer):
            CLIP_WATCH.watch(OptimizerParameters([optimizer]).parameters(), self)

    @guarded
    def on_clip(self, clip: Clip) -> None:
        """See `device.clip.ClipObserver`. A monitor made here is told of this clip too: observers are asked one by one."""
        self._see_gradient(self._optimizers.other_than_watched(clip[0][0]))

    def _before_step(self, optimizer: object, args: object, kwargs: object) -> None:
        if is_compiling():
            self._compiled = True  # all of ours in the compiled step: it is done again whenever that runs
            return
        self._see_step(optimizer)

    def _after_step(self, optimizer: object, args: object, kwargs: object) -> None:
        if not is_compiling():
            self._see_stepped()

    @guarded
    def _see_step(self, optimizer: Any) -> None:
        self.on_optimizer(optimizer)  # it may have been made before we looked
        # Torch is going through its hooks, and must find them as they were: a monitor that is closed here may take one away.
        self._waits = len(self._hooks._global_optimizer_pre_hooks) > 1
        self._see_gradient(optimizer)
        self._waits = False
        self._optimizers.step(optimizer)
        self._rule.step()

    @guarded
    def _see_stepped(self) -> None:
        self._end(self._rule.stepped())
        optimizer, self._next = self._next, None
        self._follow(optimizer)

    def _see_compiled(self) -> None:
        """A compiled step was taken since we were last called. Which optimizer took it, and how often, nobody knows."""
        if not self._compiled:
            return
        self._compiled = False
        self._start()
        self._end(self._rule.gradient())
        self._optimizers.step()
        self._follow(self._optimizers.other_than_watched())
        if self.monitor is not None:
            self.monitor.take_unseen_steps()
        self._rule.step()
        self._end(self._rule.stepped())

    @guarded
    def _on_entropy(self, distribution: object, entropy: object) -> None:
        self._entropies.see(distribution, entropy)

    def _see_gradient(self, optimizer: Any) -> None:
        """The entropies asked since the last gradient are of the minibatch that this one is of; `optimizer` may be unknown."""
        self._see_compiled()
        self._start()
        self._end(self._rule.gradient())
        self._follow(optimizer)
        entropy = self._entropies.take()
        if entropy is not None and self.monitor is not None:
            self.monitor.take_entropy(entropy)

    @guarded
    def on_scalar(self, tag: object, value: object, global_step: object) -> None:
        """`add_scalar` is called. What comes before the monitor is kept for it; one that the script made itself is given it."""
        key, number, at = str(tag), read_number(value), to_float(global_step)
        self._see_compiled()
        if at is not None:
            self._end(self._rule.scalar(key, at, trains=bool(self._optimizers)))
        if key in EPISODES and isinstance(number, float):
            self._episodes.setdefault(EPISODES[key], []).append(number)
            self._episode_at = self._episode_at if at is None else at
        if isinstance(number, float):
            self._meanings.see(key, number)
        monitor = self.monitor or next((one for one in EXITS.monitors if isinstance(one, Monitor)), None)
        if monitor is not None:
            monitor.log({key: number})
        elif len(self._early) < limits.USER_KEYS_MAX:
            self._early[key] = number

    @guarded
    def on_config(self, text: object) -> None:
        """The script's arguments, as a Markdown table."""
        self._config |= parse_table(str(text))

    @guarded
    def settle(self) -> None:
        """The script is about to end: end the update that has logged."""
        self._see_compiled()
        self._end(self._rule.finish())

    @guarded
    def tell_exception(self, error: BaseException) -> None:
        """A script that fails before its first gradient has no run yet; it gets one, so that somebody hears of it. A launcher
        that failed because a rank did is no run: the rank has told of itself."""
        if not self._started and isinstance(error, Exception) and type(error).__name__ not in OF_A_RANK:
            self._start()
            if self.monitor is not None:
                self.monitor.close_with(error, "exception")

    def _start(self) -> None:
        """Make the monitor, once, unless the script makes calls of its own."""
        if self._started or EXITS.monitors:
            return
        self._started = True
        monitor = self._open(self._optimizers.begin())
        monitor.log(self._early)
        self._early.clear()
        looked = ", ".join(f"{name} ({PATCHES[name]})" for name in PATCHES if name in self._patches)
        say(f"watching run {monitor.run!r} through {looked}. `--no-patch NAME` leaves one alone.")

    def _follow(self, optimizer: Any) -> None:
        """Begin anew for an optimizer of another model, which is about to step: the run so far was of the models before. One
        that takes over a model which is watched is the monitor's own affair."""
        monitor = self.monitor
        if optimizer is None or monitor is None or not monitor.active or any(one is not monitor for one in EXITS.monitors):
            return
        if self._waits:
            self._next = optimizer
            return
        if not self._optimizers.admits(optimizer):
            return
        self._end(self._rule.finish())
        self._rule.cut()
        self._episode_at = 0.0
        # Ranks of one start stay one attempt, whose updates are counted on.
        first = monitor.update + 1 if monitor._settings.world > 1 else 0
        monitor.close()
        self._open(self._optimizers.begin(optimizer), first)
        say(f"another model is trained from here on: run {monitor.run!r} begins anew.")

    def _open(self, optimizers: list[torch.optim.Optimizer], update: int = 0) -> Monitor:
        """Make the monitor of these."""
        hook, model = sys.excepthook, OptimizerParameters(optimizers) if optimizers else None
        run, space = name_seeded(os.environ, sys.argv), self._entropies.space
        monitor = watch(model, optimizers or None, run=run, config=self._config, action_space=space, update_start=update)
        self.monitor = monitor
        monitor.expect_none(NEVER)
        if "exceptions" not in self._patches:
            sys.excepthook = hook
        atexit.unregister(self.settle)
        atexit.register(self.settle)  # after the monitor's own, so it runs before it
        return monitor

    def _say_unseen(self) -> None:
        """The script ends, and was not seen to do anything."""
        if self._compiled and not self._started:
            say("this script is not watched: its optimizer steps are compiled, and it neither clips gradients nor logs.")

    def _end(self, ended: Ended | None) -> None:
        """End the update, and say by which rule, when it is another one than before."""
        if ended is None:
            return
        self._start()
        if self.monitor is None or not self.monitor.active:
            return
        self.monitor.take_signals(self._meanings.take())
        for sentence in (f"an update ends {ended.rule}", self._meanings.sentence):
            if sentence and sentence not in self._said:
                self._said.add(sentence)
                say(f"{sentence}.")
        self._optimizers.end()
        env_steps = int(max(ended.at, self._episode_at)) if ended.at is not None and self._episodes else None
        self.monitor.step(env_steps, **self._episodes)
        self._episodes = {name: [] for name in self._episodes}


SCRIPT = ScriptWatch()
"""Hooks of torch are process-wide, so this is one object; it does nothing unless `gradwatch run`, or a SummaryWriter of
`adapters.tensorboard`, arms it."""


def say(sentence: str) -> None:
    """One line beside the script's own output."""
    print(f"gradwatch: {sentence}", file=sys.stderr, flush=True)


def _noting(original: Callable[..., None], script: ScriptWatch) -> Callable[..., None]:
    @functools.wraps(original)
    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        script.on_optimizer(self)

    return make
