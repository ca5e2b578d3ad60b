"""What a person or a program reads: stdout is data, stderr is everything else.

With `--json` the data is one document (or one line per event with `--follow`), with the keys of the REST API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_RED, _YELLOW, _GREEN = "31", "33", "32"
_COLOURS = {
    **{"critical": "31;1", "warning": _YELLOW, "info": "36", "firing": _RED, "resolved": _GREEN},
    **{"live": _GREEN, "slow": _YELLOW, "stalled": _RED, "lost": _RED, "crashed": _RED},
}
_GLYPHS = {"critical": "!!", "warning": "!", "info": "i"}
_SPELLED = {"NaN": "NaN", "Infinity": "Inf", "-Infinity": "-Inf"}


class Output:
    """Where a verb writes. `as_json` decides which of its two faces it shows; `colour` is for people at a terminal."""

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool, colour: bool) -> None:
        self.as_json = as_json
        self._out = out
        self._err = err
        self._colour = colour

    def document(self, data: Any) -> None:
        """The one JSON document of a command."""
        import json  # 5 ms that `--help` does not need

        self._out.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def event(self, data: Any) -> None:
        """One line of JSON Lines, visible at once."""
        import json

        self._out.write(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")
        self._out.flush()

    def line(self, text: str = "") -> None:
        """One line for a person, visible at once."""
        self._out.write(text + "\n")
        self._out.flush()

    def note(self, text: str) -> None:
        """Something that is not data."""
        self._err.write(printable(text) + "\n")
        self._err.flush()

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
        """Columns as wide as their widest cell; numbers to the right. Without rows, the sentence `empty` on stderr."""
        cells = [[printable(str(cell)) for cell in row] for row in rows]
        if not cells:
            self.note(empty)
            return
        right = [all(_looks_numeric(row[i]) for row in cells) for i in range(len(heads))]
        widths = [max(len(row[i]) for row in [list(heads), *cells]) for i in range(len(heads))]
        for row in [list(heads), *cells]:
            padded = [
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(row, widths, right, strict=True)
            ]
            painted = [self.paint(cell, cell.strip()) for cell in padded]
            self._out.write("  ".join(painted).rstrip() + "\n")

    def paint(self, text: str, word: str) -> str:
        """`text` in the colour of a severity or state, where colours are shown."""
        colour = _COLOURS.get(word)
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text


def glyph(severity: str) -> str:
    """`!!`, `!` or `i`: severity is never colour alone."""
    return _GLYPHS.get(severity, "?")


def wants_colour(out: TextIO, env: Mapping[str, str]) -> bool:
    """At a terminal, unless NO_COLOR is set or the terminal is dumb."""
    return out.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"


def number(value: object, reason: str = "") -> str:
    """A number as the API gives it: null is not measured, with the reason; NaN and infinities are what was measured."""
    if value is None:
        return f"– ({reason})" if reason else "–"
    if isinstance(value, str):
        return _SPELLED.get(value, value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def known(value: object) -> str:
    """A value, or a dash where there is none."""
    return "–" if value is None or value == "" else str(value)


def percent(share: float | None) -> str:
    """A share, cut and not rounded: 99.96 % must not read as 100 %."""
    return "–" if share is None else f"{int(share * 1000) / 10:g} %"


def lost_words(coverage: dict[str, Any] | None) -> str:
    """What to say beside data of a run of which something never came; '' where all did, or nobody knows."""
    if coverage is None or not coverage["lost"]:
        return ""
    return f"{coverage['lost']} records of this run were lost; {percent(coverage['share'])} is covered."


def printable(text: str) -> str:
    """Without control characters: names and sentences come from trainers and must not drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _looks_numeric(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] == "–" or cell[:2].lstrip("-")[:1].isdigit() or cell.lstrip("-") in ("NaN", "Inf")
