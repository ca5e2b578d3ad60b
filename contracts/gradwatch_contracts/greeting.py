"""How much a HELLO may say. Agents keep to it; the daemon checks it, since all of it is kept for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack

from gradwatch_contracts import limits
from gradwatch_contracts.errors import GradwatchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradwatch_contracts.messages import Hello


def check_extent(hello: Hello) -> None:
    """Check every field of a HELLO that has no other bound.

    Raises:
        GradwatchError: `invalid-argument`, naming the field and its bound.
    """
    _check_texts("launch_id", [hello.launch_id], limits.HOST_CHARS_MAX, 1)
    _check_texts("host", [hello.host], limits.HOST_CHARS_MAX, 1)
    _check_texts("group", [hello.group], limits.NAME_CHARS_MAX, 1)
    _check_texts("agent_version", [hello.agent_version], limits.NAME_CHARS_MAX, 1)
    _check_texts("verbs", hello.verbs, limits.NAME_CHARS_MAX, limits.VERBS_MAX)
    for where, texts in (("tags", hello.tags), ("labels", hello.labels)):
        _check_texts(where, texts, limits.NAME_CHARS_MAX, limits.TAGS_MAX)
        _check_texts(where, texts.values(), limits.NAME_CHARS_MAX, limits.TAGS_MAX)
    size = len(msgpack.packb(dict(hello.config)))
    if size > limits.CONFIG_BYTES_MAX:
        raise _too_much("config", f"at most {limits.CONFIG_BYTES_MAX} bytes", f"{size}")


def _check_texts(where: str, texts: Iterable[str], chars_most: int, most: int) -> None:
    count = 0
    for text in texts:
        count += 1
        if len(text) > chars_most:
            raise _too_much(where, f"at most {chars_most} characters", f"{len(text)}")
    if count > most:
        raise _too_much(where, f"at most {most}", f"{count}")


def _too_much(where: str, expected: str, got: str) -> GradwatchError:
    next_step = f"Give watch() less in {where}, and start the trainer again."
    return GradwatchError("invalid-argument", where=f"HELLO.{where}", expected=expected, got=got, next_step=next_step)
