"""The end of an anomaly that no update brought: nothing can be said of it any more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwatch_daemon.records import Anomaly

ANOTHER_ATTEMPT = "another attempt began"


def close(anomaly: Anomaly, why: str) -> Anomaly:
    """Resolved at the last update it was seen in, and the sentence says why. A resolved one stays as it is."""
    if anomaly.state == "resolved":
        return anomaly
    return replace(
        anomaly, state="resolved", update_resolved=anomaly.update_last, sentence=f"{anomaly.sentence} Closed: {why}."
    )
