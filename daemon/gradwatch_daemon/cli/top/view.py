"""Where somebody is in `top`, and where a key takes them. Pure: `step` is the whole navigation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_daemon.cli.top.picture import Picture

SPANS: tuple[int | None, ...] = (None, 2000, 1000, 500, 200, 100, 50, 20)
"""Updates that sparklines reach back; None is the whole run."""


class Page(Enum):
    """One question each."""

    RUNS = "runs"
    RUN = "run"
    DETECTORS = "detectors"
    ANOMALIES = "anomalies"
    ANOMALY = "anomaly"
    HELP = "help"


@dataclass(frozen=True, slots=True)
class View:
    """`cursor` is the line that is chosen, `filter` a text that lines must hold. `before` are the views that `back` returns
    to. `span` is a place in SPANS."""

    page: Page = Page.RUNS
    run: str = ""
    anomaly: str = ""
    cursor: int = 0
    filter: str = ""
    paused: bool = False
    log: bool = False
    span: int = 0
    before: tuple[View, ...] = ()


def listed(view: View, picture: Picture) -> Sequence[dict[str, Any]]:
    """The documents that the lines of a page stand for, those that the filter lets through."""
    items: Sequence[dict[str, Any]] = ()
    if view.page is Page.RUNS:
        items = picture.runs
    elif view.page is Page.ANOMALIES:
        items = picture.anomalies
    elif view.page is Page.RUN:
        items = picture.anomalies_of(view.run)
    elif view.page is Page.DETECTORS and (closeup := picture.close(view.run)) is not None:
        items = sorted(closeup.run["standings"], key=lambda item: _ORDER.get(item["state"], 9))
    if not view.filter:
        return items
    wanted = view.filter.lower()
    return [item for item in items if wanted in " ".join(_words(item)).lower()]


_ORDER = {"firing": 0, "blind": 1, "learning": 2, "armed": 3}


def _words(item: dict[str, Any]) -> list[str]:
    fields = ("run", "group", "state", "kind", "subject", "severity", "sentence", "reason")
    return [str(item[name]) for name in fields if name in item]


def chosen(view: View, picture: Picture) -> dict[str, Any] | None:
    """The document under the cursor."""
    items = listed(view, picture)
    return items[min(view.cursor, len(items) - 1)] if items else None


def anomaly_at(view: View, picture: Picture) -> dict[str, Any] | None:
    """The anomaly that is meant: the one that is open, or the one under the cursor."""
    if view.page is Page.ANOMALY:
        return picture.anomaly(view.anomaly)
    return chosen(view, picture) if view.page in (Page.ANOMALIES, Page.RUN) else None


def run_at(view: View, picture: Picture) -> str:
    """The run that is meant, '' for none."""
    if view.page in (Page.RUN, Page.DETECTORS, Page.ANOMALY):
        return view.run
    found = chosen(view, picture)
    return str(found["run"]) if found is not None else ""


def step(view: View, action: str, picture: Picture) -> View:
    """The view after an action of the keyboard; the same for one that only asks something of the daemon."""
    if action in ("next", "previous"):
        last = max(len(listed(view, picture)) - 1, 0)
        return replace(view, cursor=min(max(min(view.cursor, last) + (1 if action == "next" else -1), 0), last))
    if action in ("next-anomaly", "previous-anomaly"):
        return _along(view, 1 if action == "next-anomaly" else -1, picture)
    if action in _ZOOM:
        return replace(view, span=min(max(_ZOOM[action](view.span), 0), len(SPANS) - 1))
    if action in ("log", "pause"):
        return replace(view, log=not view.log) if action == "log" else replace(view, paused=not view.paused)
    return _back(view) if action == "back" else _to(view, action, picture)


_ZOOM: dict[str, Callable[[int], int]] = {
    "zoom-in": lambda span: span + 1,
    "zoom-out": lambda span: span - 1,
    "zoom-reset": lambda span: 0,
}


def _to(view: View, action: str, picture: Picture) -> View:
    if action == "open":
        return _open(view, picture)
    if action == "runs":
        return replace(view, page=Page.RUNS, cursor=0, filter="", before=())
    if action == "anomalies":
        return _deeper(view, Page.ANOMALIES)
    if action == "detectors" and (run := run_at(view, picture)):
        return _deeper(view, Page.DETECTORS, run=run)
    if action == "help" and view.page is not Page.HELP:
        return _deeper(view, Page.HELP)
    return view


def _open(view: View, picture: Picture) -> View:
    found = chosen(view, picture)
    if found is None:
        return view
    if view.page is Page.RUNS:
        return _deeper(view, Page.RUN, run=found["run"])
    if view.page in (Page.RUN, Page.ANOMALIES):
        return _deeper(view, Page.ANOMALY, run=found["run"], anomaly=found["id"])
    return view


def _deeper(view: View, page: Page, *, run: str = "", anomaly: str = "") -> View:
    if view.page is page:
        return view
    return replace(view, page=page, run=run or view.run, anomaly=anomaly, cursor=0, filter="", before=(*view.before, view))


def _back(view: View) -> View:
    """A filter is left first; what was chosen for all pages (pause, scale, span) stays."""
    if view.filter:
        return replace(view, filter="", cursor=0)
    if not view.before:
        return view
    return replace(view.before[-1], paused=view.paused, log=view.log, span=view.span)


def _along(view: View, by: int, picture: Picture) -> View:
    """The next older (`by` 1) or newer anomaly, of the run that is looked at or of all."""
    inside = view.page in (Page.RUN, Page.ANOMALY)
    items = picture.anomalies_of(view.run) if inside else picture.anomalies
    if not items:
        return view
    ids = [item["id"] for item in items]
    place = ids.index(view.anomaly) + by if view.page is Page.ANOMALY and view.anomaly in ids else 0
    found = items[min(max(place, 0), len(items) - 1)]
    if view.page is Page.ANOMALY:
        return replace(view, run=found["run"], anomaly=found["id"])
    return _deeper(view, Page.ANOMALY, run=found["run"], anomaly=found["id"])
