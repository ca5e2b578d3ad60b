"""What a script gives to a `SummaryWriter`, told to a listener; the writer writes what it would have written."""

from __future__ import annotations

import ast
import functools
import re
from typing import Any, Protocol

from gradwatch_agent.collect.host import to_float

HYPERPARAMETERS = "hyperparameters"
"""Tag of the text under which CleanRL's scripts write their arguments, as a Markdown table."""

_ROW = re.compile(r"^\|([^|]+)\|(.*)\|\s*$", re.MULTILINE)
_HEADS = frozenset({"param", "-", ""})
MARK = "gradwatch_forwards"


class Listener(Protocol):
    """Who is told."""

    def on_scalar(self, tag: object, value: object, global_step: object) -> None:
        """`add_scalar` is called."""

    def on_config(self, text: object) -> None:
        """The script's arguments are written, as a Markdown table."""


def forward_scalars(writer: Any, listener: Listener) -> None:
    """Let every `add_scalar` and `add_text` of a SummaryWriter class also tell `listener`; once for a class."""
    add_scalar, add_text = writer.add_scalar, writer.add_text
    if hasattr(add_scalar, MARK):
        return

    @functools.wraps(add_scalar)
    def scalar(self: Any, tag: Any, scalar_value: Any, global_step: Any = None, *args: Any, **kwargs: Any) -> Any:
        listener.on_scalar(tag, scalar_value, global_step)
        return add_scalar(self, tag, scalar_value, global_step, *args, **kwargs)

    @functools.wraps(add_text)
    def text(self: Any, tag: Any, text_string: Any, *args: Any, **kwargs: Any) -> Any:
        if tag == HYPERPARAMETERS:
            listener.on_config(text_string)
        return add_text(self, tag, text_string, *args, **kwargs)

    setattr(scalar, MARK, True)
    writer.add_scalar, writer.add_text = scalar, text


def parse_table(text: str) -> dict[str, object]:
    """The rows `|name|value|` of a Markdown table; a value that is a Python literal is that, any other its text."""
    return {name.strip(): _literal(value.strip()) for name, value in _ROW.findall(text) if name.strip() not in _HEADS}


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def read_number(value: Any) -> object:
    """A host number as float, also out of an array of one element; a tensor stays one, since reading it would wait."""
    if type(value).__module__ == "numpy" and getattr(value, "size", 0) == 1:
        return float(value.reshape(()))
    number = to_float(value)
    return value if number is None else number
