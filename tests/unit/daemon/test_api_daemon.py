"""GET daemon."""

from __future__ import annotations

import pytest

from gradwatch_contracts import PROTOCOL_MAJOR
from gradwatch_daemon.api import service_models
from gradwatch_daemon.api.hub import TOPICS
from harness.fake_api import make_daemon
from harness.fake_records import T0_TEXT


async def test_daemon_in_trouble_still_answers_with_the_reason() -> None:
    """Whoever looks for what is wrong must get an answer."""
    daemon = make_daemon()
    daemon.reasons.append("the store cannot be written")

    document = (await daemon.get("/daemon")).json()

    assert (document["ready"], document["trouble"]) == (False, ["the store cannot be written"])


@pytest.mark.promise("fields-agree")
async def test_daemon_round_trips_every_field() -> None:
    """Every field with a value of its own."""
    daemon = make_daemon(profile="classic")
    daemon.hub.subscribe(TOPICS)

    document = (await daemon.get("/daemon")).json()

    service_models.DaemonAnswer.model_validate(document)
    assert document == {
        "version": "1.2.3",
        "protocol": PROTOCOL_MAJOR,
        "profile": "classic",
        "pid": 4242,
        "started_at": T0_TEXT,
        "now": "2026-01-31T12:01:00.123Z",
        "ready": True,
        "trouble": [],
        "sqlite": "3.40.1",
        "data_dir": {"path": "/data/gradwatch", "free_bytes": 3_000_000_000, "size_bytes": 9_000_000_000},
        "streams": 1,
        "frames": 77,
        "rows": 66,
        "refused": {"frame-crc": 3, "secret-wrong": 1},
        "quarantines": 2,
        "commits": 55,
        "commit_failures": 4,
        "ack": "synced",
    }
