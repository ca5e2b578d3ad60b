"""What `top` knows at one moment: documents of the API as they came, and whether they are still current. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Document = dict[str, Any]

ANOMALIES_MAX = 500
"""Kept in memory; older ones are in `gradwatch anomalies`."""


@dataclass(frozen=True, slots=True)
class Closeup:
    """The run that is looked at: its document, its signals, their series by (signal, subject), its escalations."""

    run: Document
    signals: tuple[Document, ...]
    series: Mapping[tuple[str, str], Document]
    escalations: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """`lost` says why nothing new comes, '' while the stream is open; `lost_at` when that began (s of the app's clock).
    `said` is the answer to the last thing that was asked for, `asking` whether it has not come yet, `about` the id of what it
    is about: what becomes of that replaces it."""

    url: str
    daemon: Document | None = None
    runs: tuple[Document, ...] = ()
    anomalies: tuple[Document, ...] = ()
    closeup: Closeup | None = None
    lost: str = ""
    lost_at: float = 0.0
    said: str = ""
    asking: bool = False
    about: str = ""

    def run(self, name: str) -> Document | None:
        """The summary of a run."""
        return next((item for item in self.runs if item["run"] == name), None)

    def anomaly(self, id_: str) -> Document | None:
        """One anomaly of those known."""
        return next((item for item in self.anomalies if item["id"] == id_), None)

    def anomalies_of(self, run: str) -> tuple[Document, ...]:
        """Newest first."""
        return tuple(item for item in self.anomalies if item["run"] == run)

    def close(self, run: str) -> Closeup | None:
        """The close-up, if it is of this run."""
        return self.closeup if self.closeup is not None and self.closeup.run["run"] == run else None


def with_event(picture: Picture, name: str, document: Document) -> Picture:
    """The picture after one event of the stream: the document replaces the one it is a newer state of."""
    if name == "run":
        return replace(picture, runs=_put(picture.runs, document, "run"))
    if name == "anomaly":
        if picture.about == document["id"]:
            picture = replace(picture, said=_acknowledged(document))
        return replace(picture, anomalies=newest_first(_put(picture.anomalies, document, "id")))
    if name == "command" and picture.about == document["id"]:
        return replace(picture, said=f"{document['run']}: {document['verb']}: {document['sentence']}")
    return _with_escalation(picture, document) if name == "escalation" else picture


_LIFE = ("requested", "delivered", "applied")
"""Later states of an escalation are all final."""


def _with_escalation(picture: Picture, document: Document) -> Picture:
    """The answer to a request may come after an event that is newer: an escalation never goes back."""
    closeup = picture.close(document["run"])
    known = () if closeup is None else tuple(item for item in closeup.escalations if item["id"] == document["id"])
    newest = max((*known, document), key=lambda item: _LIFE.index(item["state"]) if item["state"] in _LIFE else len(_LIFE))
    if picture.about == newest["id"]:
        picture = replace(picture, said=f"{newest['run']}: {newest['sentence']}")
    if closeup is None:
        return picture
    escalations = sorted(_put(closeup.escalations, newest, "id"), key=lambda item: item["requested_at"], reverse=True)
    return replace(picture, closeup=replace(closeup, escalations=tuple(escalations)))


def _acknowledged(item: Document) -> str:
    seen = item["acknowledged"]
    if seen is None:
        return f"{item['run']}: the note on {item['kind']} is kept."
    return f"{item['run']}: {item['kind']} acknowledged by {seen['by']}" + (f": {seen['note']}" if seen["note"] else "")


def newest_first(items: Sequence[Document]) -> tuple[Document, ...]:
    """As GET anomalies has them, and no more than are kept."""
    return tuple(sorted(items, key=lambda item: (item["fired_at"], item["id"]), reverse=True)[:ANOMALIES_MAX])


def _put(items: Sequence[Document], item: Document, key: str) -> tuple[Document, ...]:
    if any(known[key] == item[key] for known in items):
        return tuple(item if known[key] == item[key] else known for known in items)
    return (item, *items)
