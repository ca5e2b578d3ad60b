"""Files that are made of what is stored, for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EXPORT_FORMATS = ("html", "zip", "parquet", "csv", "jsonl")


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """An export that HTTP asks for: of a run or, by its id, an anomaly; `first` and `last` update, None for no bound."""

    what: str
    format: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """A new file, which belongs to whoever asked, and what is in it."""

    path: Path
    document: Mapping[str, Any]
