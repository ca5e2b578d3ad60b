"""What a page is made of: lines of styled spans, exactly as wide as the terminal. Pure; knows no terminal and no Textual."""

from __future__ import annotations

import textwrap
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gradwatch_daemon.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Iterable


class Span(NamedTuple):
    """Text in one style: '' or a word such as `critical`, `firing`, `dim`, `bold`."""

    text: str
    style: str = ""


Line = tuple[Span, ...]

BLANK: Line = ()


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of a page. `spark` are the steps of a sparkline, lowest first; the others are single characters."""

    spark: str
    nonfinite: str
    missing: str
    cursor: str
    states: dict[str, str]
    live: str
    lost: str
    ascii_only: bool


UNICODE = Glyphs(
    "▁▂▃▄▅▆▇█", "×", "·", "▸", {"armed": "■", "firing": "!", "learning": "~", "blind": "?"}, "●", "○", ascii_only=False
)
ASCII = Glyphs(
    "_.-=+*%@", "X", ".", ">", {"armed": "o", "firing": "!", "learning": "~", "blind": "?"}, "*", "o", ascii_only=True
)

_PLAIN = str.maketrans({"–": "-", "—": "-", "→": ">", "×": "x", "…": "~", "·": ".", "≥": ">", "≤": "<"})


def width(text: str) -> int:
    """Cells of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def cut(text: str, cells: int) -> str:
    """At most so many cells; what is cut off is marked."""
    if width(text) <= cells:
        return text
    while text and width(text) > cells - 1:
        text = text[:-1]
    return f"{text}…"[:cells]


def pad(text: str, cells: int, *, right: bool = False) -> str:
    """Exactly so many cells."""
    text = cut(text, cells)
    space = " " * (cells - width(text))
    return space + text if right else text + space


def line(*parts: Span | str) -> Line:
    """A line of spans; bare text has no style. Control characters are spelled out: names and notes come from elsewhere."""
    spans = (part if isinstance(part, Span) else Span(part) for part in parts)
    return tuple(Span(printable(span.text).replace("\n", " "), span.style) for span in spans if span.text)


def wrapped(text: str, cells: int, *, style: str = "", indent: str = "", most: int = 99) -> list[Line]:
    """A text over as many lines as it takes, at most `most`; a cut one ends with the mark of it."""
    rows = textwrap.wrap(printable(text), max(cells, 8), subsequent_indent=indent) or [""]
    if len(rows) > most:
        rows = [*rows[: most - 1], cut(rows[most - 1], cells - 1).removesuffix("…") + "…"]
    return [line(Span(row, style)) for row in rows]


def joined(left: Iterable[Span | str], right: Iterable[Span | str], cells: int) -> Line:
    """Two parts at both ends of a line; where they do not fit, the left one is cut."""
    ends = line(*right)
    room = cells - sum(width(span.text) for span in ends) - (1 if ends else 0)
    kept = fitted(line(*left), room)
    space = cells - sum(width(span.text) for span in (*kept, *ends))
    return (*kept, Span(" " * max(space, 0)), *ends)


def fitted(given: Line, cells: int) -> Line:
    """A line cut to so many cells."""
    kept: list[Span] = []
    room = cells
    for span in given:
        text = cut(span.text, room)
        if text:
            kept.append(Span(text, span.style))
        room -= width(text)
        if room <= 0:
            break
    return tuple(kept)


def marked(given: Line, cells: int) -> Line:
    """The line the cursor is on: its background, over the whole width."""
    used = sum(width(span.text) for span in given)
    filled = (*given, Span(" " * max(cells - used, 0)))
    return tuple(Span(span.text, f"{span.style} cursor".strip()) for span in filled)


def finished(page: Iterable[Line], cells: int, glyphs: Glyphs) -> list[Line]:
    """Every line within the width, and in ASCII where that is asked for."""
    done = [fitted(given, cells) for given in page]
    return [tuple(Span(_plain(span.text), span.style) for span in given) for given in done] if glyphs.ascii_only else done


def _plain(text: str) -> str:
    return text.translate(_PLAIN).encode("ascii", "replace").decode("ascii")


def text_of(given: Line) -> str:
    """Without styles."""
    return "".join(span.text for span in given)
