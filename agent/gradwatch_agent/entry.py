"""`watch`. What it takes is here, what it does is in `wiring`: that is imported when it is first called, so that the import
of the agent costs a trainer next to nothing."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from gradwatch_agent.monitor import Monitor

P = ParamSpec("P")
T = TypeVar("T")


def _explained(function: Callable[P, T]) -> Callable[P, T]:
    """Make a call that does not fit the signature a GradwatchError that says what would; a type checker sees the signature."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            from gradwatch_agent.arguments import refuse_call
            from gradwatch_agent.guard import is_misuse

            if not is_misuse(error):
                raise
            raise refuse_call(error, kwargs, _names_of(function)) from None

    return call


def _names_of(function: Callable[..., object]) -> Collection[str]:
    import inspect

    return inspect.signature(function).parameters


def check_options(options: Mapping[str, object]) -> None:
    """Refuse what `watch` does not take while an adapter is made: the library calls it long after.

    Raises:
        GradwatchError: `invalid-argument`, naming the argument that an unknown name is nearest to.
    """
    from gradwatch_agent.arguments import check_names

    check_names(options, _names_of(watch))


@_explained
def watch(
    model: object = None,
    optimizer: object = None,
    *,
    run: str | None = None,
    group: str = "",
    tags: object = None,
    labels: object = None,
    config: object = None,
    updates_total: int | None = None,
    update_start: int = 0,
    action_space: object = None,
    endpoint: str = "auto",
    level: object = None,
    mode: str = "async",
    off_policy: bool = False,
    max_staged_bytes: int = 16 * 1024 * 1024,
    collect_every: int = 1,
    collect: Mapping[str, bool] | None = None,
    overhead: object = "auto",
    probe: object = None,
    agree: object = None,
    spool: object = None,
) -> Monitor:
    """Watch one run of this process. Training goes on whether or not a daemon is there. Returns the monitor,
    the same one again for the same run and model; GRADWATCH_MODE=off gives one that does nothing.

    Args:
        model: the module, or modules, whose gradients and weights are measured; None for host scalars only.
        optimizer: one or several: for steps, learning rate, the first-minibatch probe, and gradient norms where nothing clips.
        run: key of the run; else GRADWATCH_RUN_ID, else the name of the script.
        group, tags, config: shown with the run. Of `config` (such as `vars(args)`) scalars are sent, and secrets are not.
        labels: where the run takes place, such as {"env": "Ant-v5"}; `device` is added from the model.
        updates_total, update_start: length of the run, for rules that depend on progress; its first update, when resumed.
        action_space, level: gymnasium space, for the normalised entropy; off, minimal, normal (else GRADWATCH_LEVEL) or debug.
        endpoint, mode: `auto`, or where the daemon listens; `async`, or `sync` to wait for the device at each `step`.
        off_policy: the minibatches are not from the current policy. max_staged_bytes: device memory for staging, >= 64 KiB.
        collect_every: look at tensors in every so many-th update only, and wherever the level is raised; else they are THINNED.
        collect: collectors to leave out, such as {"advantage_shape": False}; docs/signals.md lists them.
        overhead: the share of time we may take: "auto" (GRADWATCH_OVERHEAD, else 1 %, 5 % at DEBUG), a number (x5 there), None.
        probe: a module (best the Sequential trunk) or function of observations, or (it, batch): docs/signals.md.
        agree: with several ranks, makes `should_stop` one answer: takes this rank's bool, returns whether any's is True.
        spool: a directory for what no daemon takes, True or False; else GRADWATCH_SPOOL_DIR, else none: docs/delivery.md.

    Raises:
        GradwatchError: `invalid-argument`: which argument, what was expected, what came.
    """
    given = locals()
    from gradwatch_agent.wiring import open_monitor

    return open_monitor(given)
