"""What a detector says of the rows of a block."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple, Union

from numpy.typing import NDArray


class Verdict(IntEnum):
    """What a detector says of one update. HOLD is between the clear level and the limit."""

    CLEAR = 0
    HOLD = 1
    BREACH = 2
    LEARNING = 3
    BLIND = 4


Numbers = Union[NDArray[Any], tuple[float, ...]]
"""One number for each row of a block: an array, or a tuple of one where the block is one row (an array costs more to make
than all there is to do with it)."""


class Verdicts(NamedTuple):
    """One detector on one subject over the n rows of a block.

    `code` is n bytes of `Verdict`. The rest says something only where that is BREACH: `severity` is the rank of the severity;
    `value`, `limit`, `baseline` are the numbers behind it (NaN where there is none); `minibatch` is where in the update,
    -1 for before the first; `stage` the causal order of the stage. `reason` says why the last row is blind or how far
    learning is. `about` is the place of the rule's threshold whose words the sentence uses, () where its limit tells.
    """

    kind: str
    subject: str
    code: bytes
    severity: Numbers
    value: Numbers
    limit: Numbers
    baseline: Numbers
    minibatch: Numbers
    stage: Numbers
    reason: str = ""
    about: Numbers = ()
