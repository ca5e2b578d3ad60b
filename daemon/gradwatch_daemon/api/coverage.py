"""How much of what a trainer made has arrived: the one place where it is worked out, for every answer, stream and metric."""

import json
from collections.abc import Iterable
from typing import Any

from gradwatch_daemon.api.models import Coverage
from gradwatch_daemon.records import RunView

HEADER = "Gradwatch-Coverage"
"""Of answers that are not JSON: the same document, as the field `coverage` has it."""

HEADERS: dict[str, Any] = {
    HEADER: {"description": "Coverage of the run, as JSON: received, lost, share, thinned", "schema": {"type": "string"}}
}
"""For the description of such an answer."""


def share(received: int, lost: int) -> float | None:
    """received / (received + lost), None when nothing was made yet: that is neither all nor nothing."""
    made = received + lost
    return received / made if made else None


def covered(received: int, lost: int, thinned: int) -> dict[str, Any]:
    """The plain document of `models.Coverage`."""
    return {"received": received, "lost": lost, "share": share(received, lost), "thinned": thinned}


def of_views(views: Iterable[RunView]) -> dict[str, Any]:
    """The same of one or more runs, over all their attempts and ranks."""
    listed = list(views)
    return covered(sum(view.rows for view in listed), sum(view.lost for view in listed), sum(view.thinned for view in listed))


def coverage(views: Iterable[RunView]) -> Coverage:
    """As a model."""
    return Coverage(**of_views(views))


def header(document: dict[str, Any]) -> str:
    """The value of `HEADER`."""
    return json.dumps(document)
