"""What `watch` is given, checked before training starts: afterwards nothing of ours may raise."""

from __future__ import annotations

import numbers
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack

from gradwatch_agent.collect.collectors import Switches
from gradwatch_agent.collect.host import Hints, to_float
from gradwatch_agent.governor import SHARES
from gradwatch_contracts import limits
from gradwatch_contracts.collectors import COLLECTORS
from gradwatch_contracts.connection import ENV_SPOOL, state_dir
from gradwatch_contracts.control import Level, parse_level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import RUN, nearest, slug

if TYPE_CHECKING:
    from gradwatch_contracts.messages import Scalar

SECRET = re.compile(r"secret|token|passw|api_?key|credential", re.IGNORECASE)
SEED = re.compile(r"(?:^| )(?:--seed[ =]|seed=)(\d{1,20})(?= |$)")
"""As argparse and tyro have it, and as Hydra does."""

RUN_CHARS_MAX = 64
"""What `names.RUN` takes."""

REDACTED = "[redacted]"
MODES = ("async", "sync")
AUTO = "auto"
SPACE_ATTRIBUTES = ("n", "nvec", "spaces", "shape", "low")
"""A space has one of these at least."""

STAGED_BYTES_MIN = 64 * 1024
STAGED_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked arguments of `watch`. `modules` and `optimizers` are empty when the trainer gave none."""

    run: str
    modules: tuple[Any, ...]
    optimizers: tuple[Any, ...]
    group: str
    tags: dict[str, str]
    config: dict[str, Scalar]
    updates_total: int | None
    update_start: int
    action_space: object
    level: Level
    sync: bool
    off_policy: bool
    max_staged_bytes: int
    labels: dict[str, str] = field(default_factory=dict)
    collect_every: int = 1
    switches: Switches = field(default_factory=Switches)
    overhead: Mapping[Level, float] | None = None
    probe: object = None
    agree: object = None
    world: int = 1
    spool: str = ""

    def thins(self, update: int, level: Level) -> bool:
        """Whether `update` is one of those between that `collect_every` leaves out. A level raised above the run's own is for
        looking closely, so then every update is collected."""
        return level <= self.level and (update - self.update_start) % self.collect_every != 0


def wrong(where: str, expected: str, got: object, next_step: str = "") -> GradwatchError:
    """The refusal of one argument of `watch`."""
    step = next_step or f"Give watch() {where.partition('=')[0]}= as expected, or leave it out."
    return GradwatchError("invalid-argument", where=f"watch({where})", expected=expected, got=repr(got)[:80], next_step=step)


def check_names(given: Iterable[str], takes: Collection[str]) -> None:
    """Refuse names that `watch` does not take; `takes` are its own.

    Raises:
        GradwatchError: `invalid-argument`, naming the argument that an unknown name is nearest to.
    """
    for name in given:
        if name not in takes:
            near = next((known for known in takes if known.startswith(name)), None) or nearest(name, takes)
            step = f"Did you mean {near}=?" if near else "help(gradwatch_agent.watch) lists what it takes."
            raise wrong(name, "an argument that watch() takes", name, step)


def refuse_call(error: TypeError, given: Iterable[str], takes: Collection[str]) -> GradwatchError:
    """The refusal of a call of `watch` that Python refused.

    Raises:
        GradwatchError: `invalid-argument`, for a name that it does not take.
    """
    check_names(given, takes)
    step = "Give model and optimizer first, and all else by name."
    return GradwatchError("invalid-argument", where="watch(…)", got=str(error)[:200], next_step=step)


def check_flag(value: object, where: str) -> bool:
    """True or False; a word such as "false" is neither, and would count as True."""
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return bool(value)
    raise wrong(where, "True or False", value)


def check_space(space: object) -> object:
    """A space of gymnasium, known by its attributes, or None."""
    known = any(hasattr(space, name) for name in SPACE_ATTRIBUTES) and not isinstance(space, numbers.Number)
    if space is None or known:
        return space
    raise wrong("action_space", "a space of gymnasium, or None", space, "Pass env.action_space, or envs.single_action_space.")


def check_agree(agree: object) -> object:
    """A function of a bool that all ranks call alike, or None.

    Raises:
        GradwatchError: `invalid-argument` for what cannot be called.
    """
    if agree is None or callable(agree):
        return agree
    raise wrong("agree", "a function of a bool that returns a bool", agree)


def is_enabled(env: Mapping[str, str]) -> bool:
    """Whether the agent does anything: GRADWATCH_MODE is `on` (default) or `off`.

    Raises:
        GradwatchError: for any other word.
    """
    mode = env.get("GRADWATCH_MODE", "on").lower() or "on"
    if mode not in {"on", "off"}:
        step = "Set GRADWATCH_MODE to one of them, or unset it."
        raise GradwatchError(
            "invalid-argument", where="GRADWATCH_MODE", expected="on or off", got=repr(mode)[:40], next_step=step
        )
    return mode == "on"


def check_run(run: object, env: Mapping[str, str], script: str) -> str:
    """The run's key: the argument, else GRADWATCH_RUN_ID, else the name of the script.

    Raises:
        GradwatchError: `invalid-argument`, naming the nearest valid key.
    """
    if run is None:
        run = env.get("GRADWATCH_RUN_ID") or slug(os.path.splitext(os.path.basename(script))[0])
    if isinstance(run, str) and RUN.fullmatch(run):
        return run
    hint = f" (try {slug(run)!r})" if isinstance(run, str) else ""
    step = (
        "Choose a run of that form by watch(run=) or GRADWATCH_RUN_ID, or leave both out: then it is called as the script is."
    )
    raise GradwatchError(
        "invalid-argument", where="watch(run)", expected=RUN.pattern, got=f"{run!r}"[:80] + hint, next_step=step
    )


def name_seeded(env: Mapping[str, str], argv: Sequence[str]) -> str | None:
    """`ppo-seed1` for ppo.py that was given `--seed 1`, `--seed=1` or `seed=1`: seeds of one script are runs of their own. None
    where the environment names the run, or no seed is given as a whole number."""
    if env.get("GRADWATCH_RUN_ID") or not argv:
        return None
    found = SEED.search(" ".join(argv[1:]))
    if found is None:
        return None
    script, ending = slug(os.path.splitext(os.path.basename(argv[0]))[0]), f"-seed{found[1]}"
    return script[: RUN_CHARS_MAX - len(ending)].rstrip("-._") + ending


def check_modules(model: object) -> tuple[Any, ...]:
    """A module or a sequence of modules, as a tuple; None is none."""
    models = () if model is None else tuple(model) if isinstance(model, (list, tuple)) else (model,)
    for part in models:
        if not callable(getattr(part, "parameters", None)):
            step = "The model comes first: watch(model, optimizer)." if hasattr(part, "param_groups") else ""
            raise wrong("model", "a torch.nn.Module, a list of them, or None", model, step)
    return models


def check_optimizers(optimizer: object) -> tuple[Any, ...]:
    """An optimizer or a sequence of them, as a tuple of those that step; None is none.

    Raises:
        GradwatchError: `invalid-argument` for what has no steps to hear of, such as DeepSpeed's.
    """
    given = () if optimizer is None else tuple(optimizer) if isinstance(optimizer, (list, tuple)) else (optimizer,)
    found = tuple(stepping(part) for part in given)
    if None in found:
        raise wrong("optimizer", "a torch.optim.Optimizer, a list of them, or None", optimizer)
    return found


def stepping(optimizer: Any) -> Any:
    """The optimizer whose steps can be heard: itself, or the one that it wraps as `.optimizer`, as accelerate's does: that is
    one by its class and has no hooks. None where there is none."""
    if hasattr(optimizer, "param_groups"):
        try:
            optimizer.register_step_pre_hook(_nothing).remove()
        except Exception:  # whatever a wrapper says that never called the constructor of what it claims to be
            return stepping(getattr(optimizer, "optimizer", None))
        return optimizer
    return None


def _nothing(*args: object) -> None:
    """A hook for the moment of asking."""


def check_config(config: object, hints: Hints) -> dict[str, Scalar]:
    """Scalars of a run's configuration, values of secret-sounding keys replaced, as many as fit the limit.

    `vars(args)` holds lists and paths too: these are left out, with one hint.
    """
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise wrong("config", "a mapping such as vars(args)", config)
    kept: dict[str, Scalar] = {}
    dropped, size = [], 8
    for raw, value in config.items():
        key = _clean(str(raw))[: limits.NAME_CHARS_MAX]
        scalar = REDACTED if SECRET.search(key) else _scalar(value)
        entry = len(msgpack.packb([key, scalar]))
        if (scalar is None and value is not None) or size + entry > limits.CONFIG_BYTES_MAX:
            dropped.append(key)
            continue
        kept[key] = scalar
        size += entry
    if dropped:
        hints.say("config", f"config keys not sent, as they are no scalars or too large: {', '.join(dropped[:8])}.")
    return kept


def _scalar(value: object) -> Scalar:
    """A value as it may travel, None when it may not."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)[:64]
    return to_float(value)


def _clean(text: str) -> str:
    """Text as UTF-8 can carry it: a path with undecodable bytes holds lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def check_group(group: object) -> str:
    """The group a run is shown in."""
    if isinstance(group, str) and len(group) <= limits.NAME_CHARS_MAX:
        return _clean(group)
    raise wrong("group", f"text of at most {limits.NAME_CHARS_MAX} characters", group)


def check_labels(labels: object, modules: tuple[Any, ...]) -> dict[str, str]:
    """Where the run takes place: a mapping such as {"env": "Ant-v5"}; `device` is the model's, unless given."""
    if labels is not None and not isinstance(labels, Mapping):
        raise wrong("labels", "a mapping of text to text, such as {'env': 'Ant-v5'}", labels)
    found = _check_texts(labels, "labels")
    first = next((parameter for module in modules for parameter in module.parameters()), None)
    device = getattr(first, "device", None)
    return found if device is None or len(found) >= limits.TAGS_MAX else {"device": _clean(str(device)), **found}


def check_tags(tags: object) -> dict[str, str]:
    """A mapping of tags, or words, which become tags with an empty value."""
    return _check_texts(tags, "tags")


def _check_texts(tags: object, where: str) -> dict[str, str]:
    if tags is None:
        return {}
    if isinstance(tags, Mapping):
        found = {key: str(value) if isinstance(value, (str, int, float)) else value for key, value in tags.items()}
    elif isinstance(tags, Iterable) and not isinstance(tags, (str, bytes)):
        found = dict.fromkeys(tags, "")
    else:
        raise wrong(where, "a mapping of text to text", tags)
    short = all(
        isinstance(text, str) and len(text) <= limits.NAME_CHARS_MAX and (text or not must)
        for key, value in found.items()
        for text, must in ((key, True), (value, False))
    )
    if not short or len(found) > limits.TAGS_MAX:
        raise wrong(where, f"at most {limits.TAGS_MAX} {where} of at most {limits.NAME_CHARS_MAX} characters", tags)
    return {_clean(key): _clean(value) for key, value in found.items()}


def check_count(value: object, where: str, low: int, *, optional: bool = False) -> int | None:
    """A whole number from `low`; None passes when `optional`."""
    if value is None and optional:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and low <= value < 2**63:
        return value
    raise wrong(where, f"a whole number from {low}" + (" or None" if optional else ""), value)


def check_collect(collect: object) -> Switches:
    """Collectors to leave out: a mapping of their names to False; True leaves one in, as it is without a word.

    Raises:
        GradwatchError: `invalid-argument`, naming the collector that an unknown name is nearest to.
    """
    if collect is None:
        return Switches()
    if not isinstance(collect, Mapping):
        raise wrong("collect", "a mapping such as {'ranges': False}", collect)
    for name, on in collect.items():
        if name not in COLLECTORS:
            near = nearest(str(name), COLLECTORS)
            hint = f"did you mean {near!r}?" if near else f"one of {', '.join(COLLECTORS)}"
            raise wrong(f"collect={{{str(name)[:40]!r}: …}}", f"the name of a collector; {hint}", name)
        if not isinstance(on, bool):
            raise wrong(f"collect={{{name!r}: …}}", "True or False", on)
    return Switches(frozenset(name for name, on in collect.items() if not on))


def check_overhead(overhead: object, env: Mapping[str, str]) -> Mapping[Level, float] | None:
    """The share of an update's time that the agent may take, by level; None for no bound.

    `auto` is GRADWATCH_OVERHEAD, else 1 % and at DEBUG 5 %. A number from 0 to 1 holds below DEBUG, five times it there.
    """
    given = overhead
    if overhead == AUTO:
        word = env.get("GRADWATCH_OVERHEAD", "").lower() or AUTO
        if word in {AUTO, "off"}:
            return SHARES if word == AUTO else None
        overhead, given = _number(word), f"GRADWATCH_OVERHEAD={word}"
    if overhead is None:
        if given is None:
            return None
        step = "Set GRADWATCH_OVERHEAD to one of them, or unset it."
        raise wrong("overhead", "auto, off or a share of an update's time such as 0.01", given, step)
    share = to_float(overhead)
    if share is None or isinstance(overhead, bool) or not 0 < share <= 1:
        raise wrong("overhead", '"auto", None or a share of an update\'s time such as 0.01', given)
    return {level: min(1.0, share * (5 if level is Level.DEBUG else 1)) for level in Level}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def check_probe(probe: object) -> object:
    """A module or function of a batch of observations, or a pair of it and the batch; None is none."""
    call, batch = probe if isinstance(probe, (tuple, list)) and len(probe) == 2 else (probe, None)
    if probe is not None and (not callable(call) or (batch is None and call is not probe)):
        raise wrong("probe", "a module or function of a batch of observations, or (it, batch)", probe)
    return probe


def check_level(level: object, env: Mapping[str, str]) -> Level:
    """The base level: the argument, else GRADWATCH_LEVEL, else normal."""
    if level is None:
        return parse_level(env.get("GRADWATCH_LEVEL") or "normal", "GRADWATCH_LEVEL")
    return parse_level(level, "watch(level)")


def check_spool(spool: object, env: Mapping[str, str]) -> str:
    """The spool's directory, '' for none: the argument (False: none; True: where `gradwatch run` has it), else
    GRADWATCH_SPOOL_DIR. It is made when it is first needed."""
    if spool is None:
        spool = env.get(ENV_SPOOL, "")
    if isinstance(spool, bool):
        return f"{state_dir(env)}/spool" if spool else ""
    if isinstance(spool, (str, os.PathLike)):
        path = os.fspath(spool)
        if isinstance(path, str) and "\0" not in path:
            return os.path.abspath(os.path.expanduser(path)) if path else ""
    raise wrong("spool", "a directory, True or False", spool)


def check_mode(mode: object) -> bool:
    """Whether the mode is `sync`."""
    if mode in MODES:
        return mode == "sync"
    raise wrong("mode", " or ".join(MODES), mode)
