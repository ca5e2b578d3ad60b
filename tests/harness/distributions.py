"""A directory that holds exactly the installed distributions something requires, and nothing else.

Tests use it as the site-packages of a clean environment: no network, and what is not required (torch) cannot be imported.
"""

from __future__ import annotations

from importlib.metadata import distribution
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def link_required(target: Path, requirements: Iterable[str]) -> set[str]:
    """Symlink every distribution the requirements need, and theirs, into `target`; returns their names."""
    target.mkdir(parents=True, exist_ok=True)
    waiting = [Requirement(text) for text in requirements]
    done: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) in done:
                continue
            done.add((wanted.name, extra))
            waiting += _needed_by(wanted.name, extra)
        _link(target, wanted.name)
    return {name for name, _ in done}


def _needed_by(name: str, extra: str) -> list[Requirement]:
    parsed = [Requirement(text) for text in distribution(name).requires or []]
    return [need for need in parsed if need.marker is None or need.marker.evaluate({"extra": extra})]


def _link(target: Path, name: str) -> None:
    found = distribution(name)
    for top in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
        place = target / top
        if top != "__pycache__" and not place.is_symlink():
            place.symlink_to(str(found.locate_file(top)))
