"""The keyboard of `gradwatch top` and of the dashboard: one map, so that a hand that knows one knows the other.

The page has its own table, which a test compares with this one; docs/keyboard.md is written from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Where(Enum):
    """Who knows a key."""

    BOTH = "both"
    WEB = "web"
    TOP = "top"


@dataclass(frozen=True, slots=True)
class Key:
    """`key` is what is pressed: a character, a name as browsers have it (`Enter`, `ArrowDown`), or two characters in a row with
    a space between. `action` is one word that names what it does; several keys may do the same."""

    key: str
    action: str
    what: str
    where: Where = Where.BOTH


KEYBOARD: tuple[Key, ...] = (
    Key("j", "next", "next line"),
    Key("ArrowDown", "next", "next line"),
    Key("k", "previous", "previous line"),
    Key("ArrowUp", "previous", "previous line"),
    Key("Enter", "open", "open it"),
    Key("Escape", "back", "back"),
    Key("h", "back", "back"),
    Key("]", "next-anomaly", "next anomaly"),
    Key("[", "previous-anomaly", "previous anomaly"),
    Key("/", "filter", "show only lines with a text"),
    Key("g r", "runs", "all runs"),
    Key("g a", "anomalies", "all anomalies"),
    Key("g d", "detectors", "detectors of the run"),
    Key("e", "escalate", "raise the level of the run"),
    Key("c", "command", "ask the trainer for something", Where.TOP),
    Key("a", "acknowledge", "acknowledge the anomaly"),
    Key("n", "note", "write a note on the anomaly"),
    Key("s", "silence", "silence this kind", Where.WEB),
    Key(" ", "pause", "hold still, or go on"),
    Key("l", "log", "log scale"),
    Key("+", "zoom-in", "fewer updates"),
    Key("-", "zoom-out", "more updates"),
    Key("0", "zoom-reset", "all updates"),
    Key("x", "axis", "x axis: updates, env steps or time", Where.WEB),
    Key("b", "bands", "bands of anomalies", Where.WEB),
    Key("y", "copy", "copy a link to this view", Where.WEB),
    Key("t", "theme", "light or dark", Where.WEB),
    Key("?", "help", "these keys"),
    Key("q", "quit", "quit", Where.TOP),
)
"""Every key, in the order in which help shows them. No modifier is ever taken, nor a key while somebody types."""


def keys_of(where: Where) -> dict[str, str]:
    """Key to action, of one of the two."""
    return {entry.key: entry.action for entry in KEYBOARD if entry.where in (Where.BOTH, where)}
