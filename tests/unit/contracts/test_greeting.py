"""How much a HELLO may say: the daemon keeps all of it for good, so it has a bound of its own for each field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradwatch_contracts import limits
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.greeting import check_extent
from harness.rows import hello

LONG = "x" * limits.NAME_CHARS_MAX
MANY = {f"t{n}": LONG for n in range(limits.TAGS_MAX)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("launch_id", "x" * (limits.HOST_CHARS_MAX + 1)),
        ("host", "x" * (limits.HOST_CHARS_MAX + 1)),
        ("group", LONG + "x"),
        ("agent_version", LONG + "x"),
        ("tags", {**MANY, "one": "more"}),
        ("tags", {LONG + "x": ""}),
        ("tags", {"a": LONG + "x"}),
        ("labels", {**MANY, "one": "more"}),
        ("labels", {"a": LONG + "x"}),
        ("verbs", ("stop",) * (limits.VERBS_MAX + 1)),
        ("verbs", (LONG + "x",)),
        ("config", {"a": "x" * limits.CONFIG_BYTES_MAX}),
        ("config", {f"key{n}": n for n in range(limits.CONFIG_BYTES_MAX // 4)}),
    ],
)
def test_hello_beyond_a_bound_is_refused_naming_the_field(field: str, value: Any) -> None:
    """One field each; the sentence says how much it may be."""
    with pytest.raises(GradwatchError, match=rf"HELLO\.{field}: expected at most \d+"):
        check_extent(replace(hello(), **{field: value}))


def test_hello_at_every_bound_passes() -> None:
    """What agents may send at most."""
    check_extent(
        replace(
            hello(),
            launch_id="x" * limits.HOST_CHARS_MAX,
            host="x" * limits.HOST_CHARS_MAX,
            group=LONG,
            agent_version=LONG,
            tags=MANY,
            labels=MANY,
            verbs=("stop",) * limits.VERBS_MAX,
            config={"a": "x" * (limits.CONFIG_BYTES_MAX - 64), "b": None, "c": 1.5, "d": 7},
        )
    )
