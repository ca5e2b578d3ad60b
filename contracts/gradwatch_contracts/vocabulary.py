"""The closed lists that describe a signal: its unit, the stage of the update it arises in, what it is measured on."""

from __future__ import annotations

from enum import Enum


class Unit(str, Enum):
    """Closed list of units."""

    NATS = "nats"
    RATIO = "ratio"
    FRACTION = "fraction"
    COUNT = "count"
    INDEX = "index"
    REWARD = "reward"
    RETURN = "return"
    OBSERVATION = "observation"
    LOSS = "loss"
    NORM = "norm"
    RATE = "per step"
    MILLISECONDS = "ms"
    ACTION = "action"
    STEPS = "steps"
    BYTES = "bytes"
    UNKNOWN = "unknown"


class Stage(str, Enum):
    """Where in an update a quantity arises, in causal order: the least stage with a fault is the root."""

    OBS = "obs"
    REWARD = "reward"
    VALUE = "value"
    ADV = "adv"
    POLICY = "policy"
    LOSS = "loss"
    GRAD = "grad"
    PARAM = "param"
    OPT = "opt"
    RNN = "rnn"
    EPISODE = "episode"
    SYS = "sys"
    TELEM = "telem"
    USER = "user"

    @property
    def order(self) -> int:
        """Position in the causal order, 0 for `obs`."""
        return list(Stage).index(self)


class Source(str, Enum):
    """What a column is measured on: the whole rollout once, every minibatch of the update, or the host."""

    ROLLOUT = "rollout"
    UPDATE = "update"
    HOST = "host"
