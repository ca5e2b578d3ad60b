"""Texts kept in tests/golden: what a person sees, held line by line.

`GRADWATCH_GOLDEN=write pytest ...` writes those that differ; look at the diff before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1] / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare a text with the file of this name."""
    path = ROOT / name
    if os.environ.get("GRADWATCH_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path} does not exist: write it with GRADWATCH_GOLDEN=write"
    assert text.splitlines() == path.read_text(encoding="utf-8").splitlines()
