"""A recorded run and its bytes: the rows the agent gave, as columns of float32, and the truth beside them.

Columns keep 13 bits of mantissa (a relative error below 1e-4, exact for whole numbers to 8192, NaN and infinities exact): that
halves what lies on disk, and no threshold is as fine. A file is one case: a msgpack list of runs, each packed for itself, so
that one more run does not touch the others.
"""

from __future__ import annotations

import hashlib
import lzma
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from gradwatch_contracts.columns import Column, Kind, RankRule, Schema
from gradwatch_daemon.records import RowBlock, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = 1
MANTISSA_BITS = 13
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]


class CorpusError(Exception):
    """A recording that cannot be read: where, what was expected, what came."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Consecutive rows of one attempt under one schema: `values` f32[n, slots], `status` u8[n, columns], the rest [n]."""

    attempt: int
    schema: Schema
    update: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    env_steps: NDArray[np.int64]
    level: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    values: NDArray[np.float32]
    status: NDArray[np.uint8]

    def block(self, run: str) -> RowBlock:
        """As the daemon's gate would hand it to derivation."""
        stream = Stream(run, self.attempt, 0)
        last = len(self.update) - 1
        return RowBlock(
            stream,
            f"{run}-{self.attempt}",
            (0, last),
            self.schema,
            self.update,
            self.t_ns,
            self.env_steps,
            self.level,
            self.flags,
            self.values.astype(np.float64),
            self.status,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One run: which case and seed, under which key it was recorded, its rows, and `truth` f32[updates, truth.NAMES]."""

    case: str
    seed: int
    key: str
    updates_total: int
    parts: tuple[Part, ...]
    truth: NDArray[np.float32]

    @property
    def name(self) -> str:
        """The key of the run."""
        return f"{self.case.lower()}-{self.seed}"

    @property
    def updates(self) -> int:
        """Rows of all attempts."""
        return sum(len(part.update) for part in self.parts)

    def pack(self) -> bytes:
        """Bytes that `unpack` reads."""
        body = {
            "format": FORMAT,
            "case": self.case,
            "seed": self.seed,
            "key": self.key,
            "updates_total": self.updates_total,
            "truth": _pack_floats(self.truth),
            "parts": [
                {
                    "attempt": part.attempt,
                    "schema": [[c.name, c.subject, c.kind.value, c.rank_rule.value] for c in part.schema.columns],
                    **{name: _planes(getattr(part, name)) for name in ("update", "t_ns", "env_steps")},
                    "level": part.level.tobytes(),
                    "flags": part.flags.tobytes(),
                    "values": _pack_floats(part.values),
                    "status": np.ascontiguousarray(part.status.T).tobytes(),
                }
                for part in self.parts
            ],
        }
        return lzma.compress(msgpack.packb(body), format=lzma.FORMAT_XZ, filters=FILTERS)

    @classmethod
    def unpack(cls, data: bytes) -> Recording:
        """The recording that gave these bytes.

        Raises:
            CorpusError: the bytes are damaged, or of another format.
        """
        try:
            body: dict[str, Any] = msgpack.unpackb(lzma.decompress(data))
            if body["format"] != FORMAT:
                raise CorpusError(f"recording: expected format {FORMAT}, got {body['format']!r}; record it again")
            parts = tuple(_unpack_part(part) for part in body["parts"])
            truth = _unpack_floats(body["truth"])
            return cls(body["case"], body["seed"], body["key"], body["updates_total"], parts, truth)
        except (lzma.LZMAError, ValueError, KeyError, TypeError, EOFError, msgpack.UnpackException) as error:
            raise CorpusError(f"recording: expected a packed run, got {len(data)} damaged bytes ({error})") from error


def read_case(path: Path) -> list[Recording]:
    """All recordings of one file.

    Raises:
        CorpusError: naming the file.
    """
    try:
        blobs: list[bytes] = msgpack.unpackb(path.read_bytes())
        return [Recording.unpack(blob) for blob in blobs]
    except (CorpusError, ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorpusError(f"{path}: {error}") from error


def write_case(path: Path, recordings: list[Recording]) -> None:
    """Write one file whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgpack.packb([recording.pack() for recording in sorted(recordings, key=lambda r: r.seed)]))
    partial.replace(path)


def read_corpus(directory: Path) -> Iterator[Recording]:
    """Every recording of a directory, file by file in order of name."""
    for path in sorted(directory.glob("*.corpus")):
        yield from read_case(path)


def corpus_hash(directory: Path) -> str:
    """Of every file's name and bytes."""
    found = hashlib.blake2b(digest_size=8)
    for path in sorted(directory.glob("*.corpus")):
        found.update(path.name.encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def rounded(values: NDArray[Any]) -> NDArray[np.float32]:
    """As f32 with `MANTISSA_BITS` of mantissa, to nearest; NaN and infinities as they are, too large ones as the largest."""
    with np.errstate(over="ignore"):
        as_f32 = np.asarray(values, np.float32)
    as_f32 = np.where(np.isinf(as_f32) & np.isfinite(values), np.copysign(np.float32(3e38), values), as_f32).astype(np.float32)
    drop = 23 - MANTISSA_BITS
    bits = as_f32.view(np.uint32)
    kept = (bits + np.uint32(1 << (drop - 1))) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    return np.where(np.isfinite(as_f32), kept.view(np.float32), as_f32)


def _planes(values: NDArray[Any]) -> list[Any]:
    """Column by column, bytes of one significance together, which packs twice as well: [dtype, shape, bytes]."""
    columns = np.ascontiguousarray(values.T)
    split = columns.reshape(-1, 1).view(np.uint8).T
    return [values.dtype.str, list(values.shape), np.ascontiguousarray(split).tobytes()]


def _from_planes(packed: list[Any]) -> NDArray[Any]:
    dtype, shape, data = np.dtype(packed[0]), packed[1], packed[2]
    split = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
    columns = np.ascontiguousarray(split.T).view(dtype).reshape(shape[::-1])
    return np.ascontiguousarray(columns.T)


def _pack_floats(values: NDArray[Any]) -> list[Any]:
    return _planes(rounded(values))


def _unpack_floats(packed: list[Any]) -> NDArray[np.float32]:
    return _from_planes(packed).astype(np.float32)


def _unpack_part(part: dict[str, Any]) -> Part:
    columns = tuple(Column(name, Kind(kind), RankRule(rule), subject) for name, subject, kind, rule in part["schema"])
    update, t_ns, env_steps = (_from_planes(part[name]) for name in ("update", "t_ns", "env_steps"))
    n = len(update)
    status = np.frombuffer(part["status"], np.uint8).reshape(len(columns), n).T
    level, flags = (np.frombuffer(part[name], np.uint8) for name in ("level", "flags"))
    return Part(
        part["attempt"], Schema.of(columns), update, t_ns, env_steps, level, flags, _unpack_floats(part["values"]), status
    )
