"""What a page is drawn for: the terminal and its moment. Below all pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwatch_daemon.cli.top.lines import Glyphs


@dataclass(frozen=True, slots=True)
class Frame:
    """The terminal: its size in cells, its characters, whether acts are refused here, and what the clock says (text, s)."""

    cells: int
    rows: int
    glyphs: Glyphs
    readonly: bool
    time: str
    now: float
