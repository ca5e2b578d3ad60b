"""One NaN and one spike in a million updates: both are seen at every zoom, in the store's roll-ups and over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch_daemon.records import Commit, SignalKey, Stream
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.fake_api import FakeDaemon, make_daemon
from harness.fake_records import make_run, make_view
from harness.signal_blocks import make_block

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 1_000_000
STREAM, KEY = Stream("ant-ppo", 1, 0), SignalKey("policy.kl.k3")
NAN_AT, SPIKE_AT, UNMEASURED_AT, SPIKE = 123_457, 777_001, 400_400, 4096.0
BLOCK_ROWS = 62_500


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDaemon]:
    """An API over the real store with the one signal: values between 0 and 1, but for two; one row is not measured."""
    store = SqliteStore.open(tmp_path_factory.mktemp("data"))
    values = np.random.default_rng(3).random(ROWS, np.float32)
    values[[NAN_AT, SPIKE_AT, UNMEASURED_AT]] = np.nan, SPIKE, 0
    status = np.zeros(ROWS, np.uint8)
    status[UNMEASURED_AT] = 2
    for first in range(0, ROWS, BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        block = make_block(range(first, first + BLOCK_ROWS), stream=STREAM, signals=(KEY,), values=values[None, rows])
        store.commit(Commit((replace(block, status=status[None, rows]),)))
        while store.compact():
            pass
    view = make_view(make_run(attempt=1, world=1), rows=ROWS, lost=0, update_last=ROWS - 1)
    reader = store.reader()
    yield make_daemon({"ant-ppo": view}, reader=reader)
    reader.close()
    store.close()


def ask(daemon: FakeDaemon, first: int, last: int, points: int) -> dict[str, Any]:
    """The series over a range."""
    query = f"signal={KEY.name}&from={first}&to={last}&points={points}"
    answer: dict[str, Any] = asyncio.run(daemon.get(f"/runs/ant-ppo/series?{query}")).json()
    return answer


def bucket_of(document: dict[str, Any], update: int) -> int:
    """The place of the bucket that holds an update."""
    return int(np.searchsorted(document["update"], update, side="right")) - 1


@settings(max_examples=40, deadline=None)
@given(
    points=st.sampled_from([1, 2, 7, 100, 333, 2000, 20_000]),
    first=st.integers(0, NAN_AT),
    last=st.integers(SPIKE_AT, ROWS - 1),
)
def test_nan_and_spike_of_a_million_updates_are_in_their_bucket(daemon: FakeDaemon, points: int, first: int, last: int) -> None:
    """Whatever the range and the number of points: each is in the bucket of its update and in no other."""
    document = ask(daemon, first, last, points)
    assert len(document["update"]) <= points
    assert document["rows"] == last - first + 1
    at_nan, at_spike = bucket_of(document, NAN_AT), bucket_of(document, SPIKE_AT)
    assert [place for place, count in enumerate(document["nonfinite"]) if count] == [at_nan]
    assert document["nonfinite"][at_nan] == 1
    assert [place for place, high in enumerate(document["high"]) if high == SPIKE] == [at_spike]
    assert sum(document["measured"]) == document["rows"] - 1
    assert document["end"]["update"] == last


@pytest.mark.parametrize("zoom", [10**power for power in range(1, 6)])
def test_nan_and_spike_stay_visible_on_the_way_in(daemon: FakeDaemon, zoom: int) -> None:
    """Each step shows a tenth of the one before around either; at the end it is a point of its own."""
    half = ROWS // zoom // 2
    nan = ask(daemon, NAN_AT - half, NAN_AT + half, 50)
    assert nan["nonfinite"][bucket_of(nan, NAN_AT)] == 1
    spike = ask(daemon, SPIKE_AT - half, SPIKE_AT + half, 50)
    assert spike["high"][bucket_of(spike, SPIKE_AT)] == SPIKE
    if half < 25:
        assert nan["bucket"] == 1
        assert nan["last"][bucket_of(nan, NAN_AT)] == "NaN"
