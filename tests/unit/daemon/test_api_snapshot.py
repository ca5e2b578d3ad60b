"""GET runs/{run}/snapshot: every signal around one update."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch_contracts.columns import Status
from gradwatch_daemon.api import moment_models as models
from gradwatch_daemon.api.snapshot import ROWS_MAX
from gradwatch_daemon.records import SignalKey, Stream
from gradwatch_daemon.store.protocol import Stretch
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import make_view
from harness.signal_blocks import make_block

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("around=-1", "query/around"),
        ("window=101", "query/window"),
        ("window=-1", "query/window"),
        ("attempt=9", "query/attempt"),
    ],
)
async def test_snapshot_parameter_bad_is_refused_at_its_place(query: str, pointer: str) -> None:
    """And nothing is read."""
    daemon = make_daemon()
    found = problem_of(await daemon.get(f"/runs/ant-ppo/snapshot?{query}"))
    assert (found["status"], [e["pointer"] for e in found["errors"]]) == (400, [pointer])
    assert daemon.reader.calls == []


async def test_snapshot_of_a_run_without_updates_has_no_rows() -> None:
    """There is no newest update to look around."""
    daemon = make_daemon({"ant-ppo": make_view(update_last=None, rows=0, lost=0)})
    document = (await daemon.get("/runs/ant-ppo/snapshot")).json()
    models.SnapshotAnswer.model_validate(document)
    assert (document["around"], document["first"], document["last"], document["update"]) == (None, None, None, [])
    assert document["coverage"]["share"] is None


async def test_snapshot_tells_absent_not_measured_and_nonfinite_apart() -> None:
    """A row whose signals were others, one that was not measured and one that is NaN; the exact values else."""
    daemon = make_daemon()
    kl, arm = SignalKey("policy.kl.k3"), SignalKey("policy.entropy.norm", "arm")
    values = np.array([[0.5, NAN, INF], [9.0, 0.25, -INF]], np.float32)
    status = np.array([[0, 0, 0], [Status.LEVEL, 0, 0]], np.uint8)
    early = make_block([7, 8, 9], signals=(kl, arm), values=values, status=status)
    daemon.reader.blocks = [replace(early, flags=np.array([0, 1, 2], np.uint8)), make_block([10], signals=(kl,))]

    document = (await daemon.get("/runs/ant-ppo/snapshot?around=9&window=2&rank=1")).json()

    assert daemon.reader.calls == [("blocks_between", Stream("ant-ppo", 2, 1), 7, 11, ROWS_MAX + 1)]
    assert "MainThread" not in daemon.reader.threads_seen
    assert document == {
        "run": "ant-ppo",
        "attempt": 2,
        "rank": 1,
        "around": 9,
        "first": 7,
        "last": 11,
        "update": [7, 8, 9, 10],
        "at": ["1970-01-01T00:00:07.000Z", "1970-01-01T00:00:08.000Z", "1970-01-01T00:00:09.000Z", "1970-01-01T00:00:10.000Z"],
        "env_steps": [14336, 16384, 18432, 20480],
        "level": ["debug", "off", "minimal", "normal"],
        "partial": [False, True, False, True],
        "signals": [
            {
                "signal": "policy.entropy.norm",
                "subject": "arm",
                "unit": "fraction",
                "values": [None, 0.25, "-Infinity", None],
                "status": ["level", "measured", "measured", "absent"],
            },
            {
                "signal": "policy.kl.k3",
                "subject": "",
                "unit": "nats",
                "values": [0.5, "NaN", "Infinity", 10.0],
                "status": ["measured"] * 4,
            },
        ],
        "truncated": False,
        "coverage": {"received": 96, "lost": 2, "share": 96 / 98, "thinned": 0},
    }


async def test_snapshot_without_around_is_of_the_newest_update() -> None:
    """Of the newest attempt what the run says; of an older one its last row."""
    daemon = make_daemon()
    daemon.reader.course = [Stretch(0, 40, 1, 2, 2), Stretch(30, 33, 3, 4, 2)]
    assert (await daemon.get("/runs/ant-ppo/snapshot?window=0")).json()["around"] == 120
    assert (await daemon.get("/runs/ant-ppo/snapshot?attempt=1")).json()["around"] == 33


async def test_snapshot_of_more_rows_than_fit_is_of_the_newest_and_says_so() -> None:
    """A trainer that goes back again and again makes many rows of few updates."""
    daemon = make_daemon()
    daemon.reader.blocks = [make_block([3]), make_block([4] * ROWS_MAX)]
    document = (await daemon.get("/runs/ant-ppo/snapshot?around=4")).json()
    assert (document["truncated"], document["update"]) == (True, [4] * ROWS_MAX)
    assert {len(signal["values"]) for signal in document["signals"]} == {ROWS_MAX}
