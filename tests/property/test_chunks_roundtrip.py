"""Whatever was committed comes back bit by bit in order of arrival, wherever it lies by then."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradwatch_daemon.records import Commit, SignalBlock, SignalKey
from gradwatch_daemon.store.chunks.tail import decode_tails, encode_tail
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.signal_blocks import STREAM, make_block, rows_of

POOL = tuple(SignalKey(f"s.{name}", subject) for name in ("a", "b", "c") for subject in ("", "head", "層"))
SIGNAL_SETS = st.lists(st.sampled_from(POOL), unique=True, max_size=5).map(tuple)
BITS = np.array([0, 0x80000000, 0x7FC00000, 0x7FC12345, 0x7F800001, 0x7F800000, 0xFF800000, 1, 0x3F800000], np.uint32)
INT64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def blocks(draw: st.DrawFn) -> SignalBlock:
    """Any signals, values of any bits, statuses of any kind; updates that run on, repeat, go back or jump."""
    signals = draw(SIGNAL_SETS)
    count = draw(st.sampled_from([0, 1, 1, 2, 5, 63, 64, 200, 1000, 1023, 1024, 1025]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (len(signals), count)
    kind = draw(st.sampled_from(["any", "odd", "constant", "smooth"]))
    if kind == "any":
        bits = rng.integers(0, 2**32, shape, dtype=np.uint32)
    elif kind == "odd":
        bits = rng.choice(BITS, shape)
    elif kind == "constant":
        bits = np.full(shape, draw(st.sampled_from(BITS.tolist())), np.uint32)
    else:
        bits = rng.standard_normal(shape).astype(np.float32).view(np.uint32)
    status = {
        "measured": np.zeros(shape, np.uint8),
        "level": np.full(shape, 2, np.uint8),
        "mixed": rng.integers(0, 12, shape).astype(np.uint8),
        "rare": np.where(rng.random(shape) < 0.01, np.uint8(4), np.uint8(0)),
    }[draw(st.sampled_from(["measured", "level", "mixed", "rare"]))]
    start = draw(st.one_of(st.integers(0, 3000), INT64))
    steps = draw(st.sampled_from(["consecutive", "repeated", "jumps"]))
    if steps == "jumps":
        update = rng.integers(-(2**63), 2**63 - 1, count, dtype=np.int64)
    else:
        first = min(start, 2**63 - 1 - count)
        update = first + (np.arange(count) if steps == "consecutive" else np.arange(count) // 2)
    return make_block(update, signals=signals, values=bits.view(np.float32), status=status)


ACTS = st.lists(st.one_of(blocks(), st.sampled_from(["compact", "reopen"])), max_size=8)


@settings(max_examples=40, deadline=None)
@given(acts=ACTS, bound=st.one_of(st.integers(-5, 3000), INT64))
def test_committed_rows_come_back_bit_by_bit_through_compaction_and_restart(acts: list[SignalBlock | str], bound: int) -> None:
    """Values, NaN payloads, statuses, ragged subjects, repeated updates, order; also of those after any update."""
    with tempfile.TemporaryDirectory() as folder:
        store, committed = SqliteStore.open(Path(folder)), []
        try:
            for act in acts:
                if isinstance(act, SignalBlock):
                    store.commit(Commit((act,)))
                    committed.append(act)
                elif act == "compact":
                    store.compact()
                else:
                    store.close()
                    store = SqliteStore.open(Path(folder))
            expected = rows_of(committed)
            assert rows_of(store.blocks_after(STREAM, -(2**63))) == [row for row in expected if row[1] != -(2**63)]
            assert rows_of(store.blocks_since_checkpoint(STREAM)) == expected
            while store.compact():
                pass
            assert rows_of(store.blocks_since_checkpoint(STREAM)) == expected
            assert rows_of(store.blocks_after(STREAM, bound)) == [row for row in expected if int(str(row[1])) > bound]
            newest = max((int(str(row[1])) for row in expected), default=-1)
            assert store.row_counts() == ({STREAM: (len(expected), newest)} if committed else {})
        finally:
            store.close()


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    n=st.integers(1, 6),
    signals=st.integers(0, 4),
    tails=st.integers(1, 4),
)
def test_tails_of_any_arrays_decode_to_the_same_bytes(data: st.DataObject, n: int, signals: int, tails: int) -> None:
    """Every column of every tail, however many are decoded at once."""
    made = []
    for _ in range(tails):
        wide = [data.draw(hnp.arrays(np.int64, n)) for _ in range(3)]
        narrow = [data.draw(hnp.arrays(np.uint8, n)) for _ in range(2)]
        values = data.draw(hnp.arrays(np.uint32, (signals, n))).view(np.float32)
        status = data.draw(hnp.arrays(np.uint8, (signals, n)))
        made.append(SignalBlock(STREAM, *wide, *narrow, POOL[:signals], values, status))
    rows = decode_tails([encode_tail(block) for block in made], n, signals)
    back = SignalBlock(STREAM, *rows[:5], POOL[:signals], rows.values, rows.status)
    assert rows_of([back]) == rows_of(made)
