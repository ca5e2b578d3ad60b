"""What needs no device: merging partial columns of an update, scalars of `log` and `step`, hints to the trainer's author."""

from __future__ import annotations

import difflib
import logging
import math
import numbers
from array import array
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Protocol

from gradwatch_agent.guard import text_of
from gradwatch_contracts import limits
from gradwatch_contracts.columns import Status, merge
from gradwatch_contracts.names import USER_KEY, nearest
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gradwatch_agent.blackbox import Norms
    from gradwatch_contracts.messages import Scalar

Key = tuple[str, str]
"""(column name, subject)."""

WEAK = frozenset({Status.UNDEFINED, Status.NO_GRADIENT, Status.NOT_CALLED})
"""Reasons that hold only when nothing was measured. Any other one means that a part of the update is missing, so the
rest must not pass for the whole."""

FLOATS_ONLY = {float}

LISTED_BYTES = 72
"""Held for each number in lists: the float, its minibatch, its bound, and their slots."""

PHASES = ("rollout", "update")
"""Of a recurrent state: met while collecting, or in a minibatch."""

ARGUMENTS = {
    "rollout": (
        "rewards",
        "values",
        "returns",
        "advantages",
        "observations",
        "actions",
        "normalizer",
        "obs_clip",
    ),
    "ppo": ("new_logp", "old_logp", "entropy", "values", "returns", "advantages", "clip", "actions", "mask", "loss", "std"),
    "recurrent": ("h", "c", "phase", "reset"),
}
"""What each call takes; what it does not take gets a hint instead of an exception."""

FITS = {
    "rollout": "Numbers of any shape, none of it empty or masked; values and returns of one shape.",
    "ppo": "Float tensors of one shape on one device; entropy also as numbers, loss as one number, mask as bool.",
}
"""What the tensors of a call must be, for whoever passed others."""

UNFIT = frozenset({Status.SHAPE, Status.DTYPE, Status.DEVICE})
"""Reasons that are about how a call was made."""

STEP_ARGUMENTS = ("env_steps", "episode_returns", "episode_lengths", "truncated", "eval_return")
NEAR = 0.85
"""Likeness (difflib) of a slip: one letter of eight."""

DIGITS = "0123456789"

LOGGER = logging.getLogger("gradwatch")


class Tally:
    """Partial columns of one update, merged as they come, and the reason for each that is missing; with them go tables
    (kind, index, names, values) and events (kind, text, detail) of the update, the norms that the black box keeps, and numbers
    of the host that are yet to be read."""

    __slots__ = ("_order", "_unread", "events", "norms", "parts", "reasons", "tables", "unread")

    def __init__(self) -> None:
        self.parts: dict[Key, tuple[float, ...]] = {}
        self.reasons: dict[Key, Status] = {}
        self.tables: list[tuple[str, tuple[str, ...], tuple[str, ...], bytes]] = []
        self.events: list[tuple[str, str, dict[str, Scalar]]] = []
        self.norms: list[Norms] = []
        self._order: dict[Key, int] = {}
        self._unread: list[tuple[Reader, Sequence[float]]] = []
        self.unread = 0
        """How many numbers were put off."""

    def put_off(self, reader: Reader, values: Sequence[float]) -> None:
        """Have `reader` tell these numbers when the row is made."""
        self._unread.append((reader, values))
        self.unread += len(values)

    def read(self) -> None:
        """Read what was put off."""
        unread, self._unread = self._unread, []
        for reader, values in unread:
            reader.tell(self, values)

    def add(self, name: str, part: tuple[float, ...], subject: str = "") -> None:
        """Merge `part` of column `name`; what `put` does, without another call."""
        key, parts = (name, subject), self.parts
        held = parts.get(key)
        parts[key] = part if held is None else merge(COLUMNS[name].kind, held, part)

    def put(self, key: Key, part: tuple[float, ...]) -> None:
        """Merge `part` of the column `key`."""
        held = self.parts.get(key)
        self.parts[key] = part if held is None else merge(COLUMNS[key[0]].kind, held, part)

    def add_last(self, name: str, order: int, value: float, subject: str = "") -> None:
        """Keep the value with the largest `order`: blocks come by shape, not by time."""
        key = (name, subject)
        if self._order.get(key, -1) <= order:
            self._order[key] = order
            self.parts[key] = (value,)

    def refuse(self, name: str, status: Status, subject: str = "") -> None:
        """Say why the column, or a part of it, is missing. A weak reason never hides a strong one."""
        key = (name, subject)
        if status not in WEAK or key not in self.reasons:
            self.reasons[key] = status

    def missing(self) -> dict[Key, Status]:
        """The reasons that stand: a weak one falls once anything was measured."""
        parts = self.parts
        return {key: status for key, status in self.reasons.items() if key not in parts or status not in WEAK}


class Reader(Protocol):
    """What one vector of an update is."""

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """Turn its numbers into columns of `tally`."""


@dataclass(frozen=True, slots=True)
class LastReader:
    """One number that is a column as it stands."""

    name: str
    subject: str

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See Reader."""
        tally.add(self.name, (values[0],), self.subject)


class Hints:
    """Lines for the trainer's author, each once: training must not be flooded by its telemetry."""

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, topic: str, sentence: str) -> None:
        """Log `sentence` unless something was said on `topic` before."""
        if topic not in self._said and len(self._said) < limits.USER_KEYS_MAX:
            self._said.add(topic)
            LOGGER.warning("gradwatch: %s", sentence)

    def say_unknown(self, call: str, unknown: Iterable[str], nameless: int = 0) -> None:
        """Name the arguments that `call` does not take, each with the nearest it does take, and say if some had no name."""
        if nameless:
            takes = ", ".join(ARGUMENTS[call])
            self.say(
                f"{call}:", f"{call}() takes arguments by name only; {nameless} without one are not measured. It takes {takes}"
            )
        for name in unknown:
            self.say(f"{call}:{name}", f"{call}() takes no {name!r}{_guess(name, ARGUMENTS[call])}")

    def say_nameless_step(self, nameless: int) -> None:
        """Say that `step` takes two numbers without a name, and the others by name."""
        named = " ".join(f"{name}=" for name in STEP_ARGUMENTS[2:])
        self.say(
            "step:",
            f"step() takes env_steps and episode_returns without a name; {nameless} more not measured. It takes {named}",
        )

    def say_unfit(self, call: str, given: Mapping[str, object]) -> None:
        """Name what `call` was given, with types and shapes, where some of it could not be measured."""
        listed = ", ".join(f"{name} {looks_of(value)}" for name, value in given.items() if value is not None)
        self.say(f"{call} unfit", f"{call}() was given {listed}; some of it cannot be measured. Expected: {FITS[call]}")

    def say_wrong_word(self, where: str, got: object, words: Sequence[str]) -> None:
        """Name the words that `where` takes, and the nearest to what came; nothing is measured under a wrong one."""
        expected, word = " or ".join(map(repr, words)), text_of(got)[:40]
        sentence = f"{where} is {expected}, got {word!r}; not measured{_guess(word, words)}"
        self.say(where, sentence)


def looks_of(value: object) -> str:
    """Type and shape of a tensor or array, and its device unless that is the host; the type of anything else."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return type(value).__name__
    device = str(getattr(value, "device", "cpu"))
    place = "" if device == "cpu" else f" on {device}"
    return f"{str(dtype).removeprefix('torch.')}[{', '.join(map(str, shape))}]{place}"


def _guess(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else "."


Scalars = tuple[tuple[str, ...], bytes]
"""Numbers of the trainer's: its own names of them, and f64[names] in the byte order of this machine."""

NO_SCALARS: Scalars = (), b""


class UserScalars:
    """The scalars of `log` and `step` since the last row. Floats under the keys of last time are packed at once: 40 cost 2
    microseconds, and the trainer's own floats and strings go on to no other thread, which would have to free them."""

    __slots__ = ("_given", "_hints", "_keys", "_packed", "_rows", "_seen", "_stage", "_values", "refused")

    def __init__(self, hints: Hints, stage: Callable[[str, object], bool]) -> None:
        self._values: dict[str, float] = {}
        self._packed = b""
        """Instead of `_values`: of the keys `_seen`."""
        self.refused: dict[str, Status] = {}
        self._keys: set[str] = set()
        self._seen: tuple[tuple[str, ...], Struct] = (), Struct("")
        """The keys of last time, and how their numbers are packed."""
        self._hints = hints
        self._stage = stage
        self._rows = False
        self._given: set[str] = set()

    @property
    def started(self) -> bool:
        """Whether anything was put since the last take."""
        return bool(self._packed or self._values)

    def put(self, scalars: Mapping[str, object]) -> None:
        """Take scalars; the last value of a key within an update wins."""
        keys = tuple(scalars)
        seen, struct = self._seen
        if keys == seen and [*map(type, scalars.values())].count(float) == len(keys) and not self._values:
            self._packed = struct.pack(*scalars.values())
            return
        if self._packed:
            self._values, self._packed = dict(zip(seen, struct.unpack(self._packed), strict=True)), b""
        self._given = set(keys)
        for key, value in scalars.items():
            if type(value) is float and key in self._keys:
                self._values[key] = value
            else:
                self._put_other(key, value)
        if all(key in self._keys for key in keys):
            self._seen = keys, Struct(f"{len(keys)}d")

    def take(self) -> Scalars:
        """Return what was put since the last take."""
        if self._packed:
            taken, self._packed = (self._seen[0], self._packed), b""
        elif self._values:
            values, self._values = self._values, {}
            taken = tuple(values), array("d", values.values()).tobytes()
        else:
            return NO_SCALARS
        self._rows = True
        return taken

    def take_refused(self) -> dict[str, Status]:
        """Return the keys whose value could not be read."""
        refused, self.refused = self.refused, {}
        return refused

    def _put_other(self, key: object, value: object) -> None:
        if not isinstance(key, str) or not self._known(key):
            return
        number = to_float(value)
        if number is not None:
            self._values[key] = number
        elif self._stage(key, value):
            self._values.pop(key, None)
        else:
            self._values.pop(key, None)
            self.refused[key] = Status.DTYPE
            self._hints.say(f"user:{key}", f"log({key}=…) takes one real number, got {type(value).__name__}; it is not sent.")

    def _known(self, key: str) -> bool:
        if key in self._keys:
            return True
        if not USER_KEY.fullmatch(key):
            self._hints.say(f"user:{key[:64]}", f"log() key {key[:80]!r} is not sent: expected {USER_KEY.pattern}.")
            return False
        if len(self._keys) >= limits.USER_KEYS_MAX:
            self._hints.say("user", f"log() takes {limits.USER_KEYS_MAX} keys a run; {key!r} and further ones are not sent.")
            return False
        self._look_alike(key)
        self._keys.add(key)
        return True

    def _look_alike(self, key: str) -> None:
        """A new key near an argument of `step`, or near an earlier key that is not given now, may be a slip. It is sent as it
        is. In the first row all keys are new, and families such as loss_1, loss_2 are the rule."""
        near = _most_alike(key, STEP_ARGUMENTS)
        if near is not None:
            self._hints.say(f"alike:{key}", f"{key!r} is sent as a scalar of the trainer; did you mean {near}= of step()?")
            return
        near = _most_alike(key, self._keys - self._values.keys() - self._given) if self._rows else None
        if near is not None and near.rstrip(DIGITS) != key.rstrip(DIGITS):
            self._hints.say(f"alike:{key}", f"log() key {key!r} is new; did you mean {near!r}, which was used before?")


def _most_alike(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearly this one."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=NEAR)), None)


def to_float(value: object) -> float | None:
    """A host number as float, None for anything else (tensors too) and for an integer beyond a float's range."""
    if type(value) is float:
        return value
    if isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:
            return None
    return None


def to_floats(values: Iterable[object]) -> list[float] | None:
    """Host numbers as floats, None when one of them is something else."""
    numbers_ = [to_float(value) for value in values]
    return None if any(number is None for number in numbers_) else [number for number in numbers_ if number is not None]


def moments(values: list[float]) -> tuple[float, float, float]:
    """(n, mean, M2) of at least one value. NaN and infinities propagate."""
    mean = _sum(values) / len(values)
    return float(len(values)), mean, _sum([(value - mean) * (value - mean) for value in values])


def _sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except (ValueError, OverflowError):
        return sum(values)


def add_series(tally: Tally, name: str, values: list[float], minibatches: list[int], subject: str = "") -> None:
    """Add one value per minibatch: its moments and, as far as the registry has them, the largest, the number of
    non-finite ones and the first minibatch with one."""
    if not values:
        return
    tally.add(name, moments(values), subject)
    bad: list[int] = []
    if not math.isfinite(sum(values)):  # as nearly never: then each is looked at
        bad = [minibatch for value, minibatch in zip(values, minibatches, strict=True) if not math.isfinite(value)]
    if f"{name}.max" in COLUMNS:
        tally.add(f"{name}.max", (math.nan if bad and any(map(math.isnan, values)) else max(values),))
    if f"{name}.nonfinite" in COLUMNS:
        tally.add(f"{name}.nonfinite", (float(len(bad)),))
        add_first(tally, f"{name}.nonfinite_mb", min(bad, default=None))


def add_first(tally: Tally, name: str, minibatch: int | None) -> None:
    """A first minibatch; that there was none is UNDEFINED."""
    if minibatch is None:
        tally.refuse(name, Status.UNDEFINED)
    else:
        tally.add(name, (float(minibatch),))
