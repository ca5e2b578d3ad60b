"""The bytes of tails and chunks: sizes, compactness and what a roll-up says."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch_daemon.store.chunks.chunk import Chunk, decode_columns, decode_sets, decode_status, decode_values, encode_chunk
from gradwatch_daemon.store.chunks.rollup import ABSENT, decode_groups, decode_reasons, roll_up
from gradwatch_daemon.store.chunks.tail import decode_run, decode_tails, encode_tail
from gradwatch_daemon.store.schema import CHUNK_ROWS
from harness.signal_blocks import KEYS, make_block


def one_chunk(values: np.ndarray, status: np.ndarray | None = None, update: np.ndarray | None = None) -> Chunk:
    """A chunk of one signal, number 7, in set 3."""
    update = np.arange(CHUNK_ROWS) if update is None else update
    block = make_block(update, signals=KEYS[:1], values=values.reshape(1, -1), status=status)
    rows = decode_tails([encode_tail(block)], CHUNK_ROWS, 1)
    return encode_chunk([(3, (7,), rows)])


NOISE = np.random.default_rng(1).standard_normal(CHUNK_ROWS).astype(np.float32)
MIXED = (np.arange(CHUNK_ROWS) // 64 % 12).astype(np.uint8)


@pytest.mark.parametrize("field", ["update", "t_ns", "level", "flags", "values", "status"])
def test_encode_tail_with_one_array_too_short_is_refused(field: str) -> None:
    """Every array is counted: a wrong length would be read as another column."""
    block = make_block(range(5))
    arrays = {name: getattr(block, name) for name in ("update", "t_ns", "env_steps", "level", "flags", "values", "status")}
    arrays[field] = arrays[field][..., :4]
    with pytest.raises(ValueError, match="3 signals x"):
        encode_tail(type(block)(block.stream, signals=block.signals, **arrays))


def test_encode_tail_of_a_transposed_block_is_refused() -> None:
    """As many numbers in the wrong shape."""
    block = make_block(range(4))
    turned = type(block)(
        block.stream,
        block.update,
        block.t_ns,
        block.env_steps,
        block.level,
        block.flags,
        block.signals,
        block.values.T,
        block.status,
    )
    with pytest.raises(ValueError, match="3 signals x 4 rows"):
        encode_tail(turned)


def test_decode_run_joins_neighbours_of_one_set_and_keeps_the_others_apart() -> None:
    """Tails of different lengths, and a set that comes back after another."""
    blocks = [make_block(range(a, b)) for a, b in ((0, 2), (2, 4), (4, 5), (5, 9), (9, 10))]
    sets = [1, 1, 1, 2, 1]
    tails = [(set_id, len(block), encode_tail(block)) for set_id, block in zip(sets, blocks, strict=True)]
    runs = decode_run(tails, lambda _: (0, 1, 2))
    assert [(set_id, rows.update.tolist()) for set_id, rows in runs] == [(1, [0, 1, 2, 3, 4]), (2, [5, 6, 7, 8]), (1, [9])]
    assert runs[0][1].values.tolist() == make_block(range(5)).values.tolist()


def test_encode_chunk_of_consecutive_updates_stores_the_shared_columns_in_a_few_bytes_a_row() -> None:
    """Update and env_steps deflate to nothing; a jittery clock costs under 4 bytes a row."""
    rng = np.random.default_rng(2)
    block = make_block(range(CHUNK_ROWS), signals=KEYS[:1])
    rows = decode_tails([encode_tail(block)], CHUNK_ROWS, 1)
    steady = encode_chunk([(3, (7,), rows)])
    jitter = rows._replace(t_ns=rows.t_ns + rng.integers(0, 10**6, CHUNK_ROWS))
    jittery = encode_chunk([(3, (7,), jitter)])
    assert len(steady.columns) < 200
    assert len(jittery.columns) < 4 * CHUNK_ROWS
    assert decode_columns(jittery.columns)[1].tolist() == jitter.t_ns.tolist()


@pytest.mark.parametrize(
    ("values", "size"),
    [(np.zeros(CHUNK_ROWS, np.float32), None), (np.full(CHUNK_ROWS, -0.0, np.float32), 4), (NOISE, 4096)],
    ids=["all bits zero", "constant", "any"],
)
def test_encode_chunk_stores_a_constant_signal_once(values: np.ndarray, size: int | None) -> None:
    """Non-finite counts and learning rates rarely change; negative zero is not zero."""
    piece, _ = one_chunk(values).pieces[7]
    assert (None if piece.data is None else len(piece.data)) == size
    assert decode_values(piece.data).tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("status", "size"),
    [
        (np.zeros(CHUNK_ROWS, np.uint8), 0),
        (np.full(CHUNK_ROWS, 2, np.uint8), 1),
        (np.arange(CHUNK_ROWS, dtype=np.uint8) // 64 % 12, 60),
    ],
    ids=["measured", "constant", "any"],
)
def test_encode_chunk_stores_statuses_only_where_something_is_missing(status: np.ndarray, size: int) -> None:
    """Nothing, one byte, or deflated."""
    piece, _ = one_chunk(NOISE, status.reshape(1, -1)).pieces[7]
    assert len(piece.status or b"") <= size
    assert decode_status(piece.status).tobytes() == status.tobytes()
    counted = {int(code): int((status == code).sum()) for code in np.unique(status) if code}
    assert decode_reasons([piece.reasons or b""]) == counted


def test_encode_chunk_holds_the_extremes_of_updates_that_go_back() -> None:
    """A trainer that went back to a checkpoint: a range query must still find the chunk."""
    update = np.concatenate([np.arange(500, 1000), np.arange(200, 724)])
    chunk = one_chunk(NOISE, update=update)
    assert (chunk.update_min, chunk.update_max) == (200, 999)
    assert decode_columns(chunk.columns)[0].tolist() == update.tolist()


def test_encode_chunk_of_two_sets_marks_where_a_signal_is_absent() -> None:
    """Neither measured nor missing for a reason: those rows do not have the signal at all."""
    early, late = make_block(range(1000), signals=KEYS[:1]), make_block(range(1000, CHUNK_ROWS), signals=KEYS[:2])
    parts = [
        (3, (7,), decode_tails([encode_tail(early)], 1000, 1)),
        (4, (9, 7), decode_tails([encode_tail(late)], CHUNK_ROWS - 1000, 2)),
    ]
    chunk = encode_chunk(parts)
    assert decode_sets(chunk.sets) == [(3, 1000), (4, 24)]
    piece, totals = chunk.pieces[9]
    assert decode_status(piece.status).tolist() == [ABSENT] * 1000 + [0] * 24
    assert piece.reasons == b""
    assert totals.measured == 24
    groups = decode_groups([piece.groups])[0]
    assert groups["rows"].tolist() == [0] * 15 + [24]
    assert groups["low"][15] == 1000.0


def test_roll_up_hides_neither_extremes_nor_what_is_not_finite_nor_what_is_missing() -> None:
    """One group of each kind; an unmeasured row never takes part, whatever bytes its value has."""
    values, status = np.ones((1, 256), np.float32), np.zeros((1, 256), np.uint8)
    values[0, [3, 10, 20, 63]] = [-5, 9, np.nan, np.inf]
    values[0, 64:128], status[0, 64:128] = np.nan, 0
    values[0, 128:192], status[0, 128:192] = 1e30, 2
    status[0, 150] = 11
    status[0, 192:255] = ABSENT
    values[0, 255] = 7
    groups = roll_up(values, status)[0]
    assert groups["low"].tolist()[0::3] == [-5, 7]
    assert groups["high"].tolist()[0::3] == [9, 7]
    assert np.isnan(groups["low"][1:3]).all()
    assert np.isnan(groups["high"][1:3]).all()
    assert np.isposinf(groups["last"][0])
    assert np.isnan(groups["last"][1:3]).all()
    assert groups["last"][3] == 7
    assert groups["nonfinite"].tolist() == [2, 64, 0, 0]
    assert groups["measured"].tolist() == [64, 64, 0, 1]
    assert groups["rows"].tolist() == [64, 64, 64, 1]
    assert groups["status"].tolist() == [0, 0, 11, 0]
