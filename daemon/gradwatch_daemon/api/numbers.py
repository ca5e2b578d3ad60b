"""Numbers and times as JSON carries them.

JSON has no NaN and no infinity, and a client must tell "not measured" from "measured, and it was NaN". So `null` means
not measured (a `status` stands beside it), and the strings "NaN", "Infinity" and "-Infinity" mean measured so.
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import JSONResponse

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import SignalBlock, SignalKey

JsonNumber = float | str | None

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def number(value: float | None) -> JsonNumber:
    """One measured value, or None for one that was not measured."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def numbers(values: NDArray[np.float64], absent: NDArray[np.bool_]) -> list[JsonNumber]:
    """A whole f64[n] array at once; `absent` bool[n] marks what was not measured and becomes null whatever it holds."""
    listed: list[JsonNumber] = values.tolist()
    for at in np.flatnonzero(~np.isfinite(values) | absent).tolist():
        listed[at] = None if absent[at] else number(values[at])
    return listed


def integers(values: NDArray[np.int64], absent: NDArray[np.bool_]) -> list[int | None]:
    """A whole i64[n] array; null where `absent`."""
    listed: list[int | None] = values.tolist()
    for at in np.flatnonzero(absent).tolist():
        listed[at] = None
    return listed


def words(codes: NDArray[np.uint8], names: tuple[str, ...]) -> list[str]:
    """The name of each code of a u8[n] array."""
    named: list[str] = np.array(names, dtype=object)[codes].tolist()
    return named


def plain(value: Any) -> Any:
    """A small tree of scalars, mappings and lists (a run's config, an event's detail) with its floats as JSON takes them."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def time_text(unix_ns: int) -> str:
    """RFC 3339 in UTC with milliseconds, cut and not rounded: a time never moves past the one it names."""
    moment = _EPOCH + timedelta(milliseconds=unix_ns // 1_000_000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def times(unix_ns: NDArray[np.int64]) -> list[str]:
    """A whole i64[n] array of unix ns as `time_text` writes one."""
    stamps = (unix_ns // 1_000_000).astype("datetime64[ms]")
    texts: list[str] = np.datetime_as_string(stamps, unit="ms").tolist()
    return [f"{text}Z" for text in texts]


def parse_time(text: str, where: str) -> int:
    """Unix ns of an RFC 3339 time.

    Raises:
        GradwatchError: `invalid-parameter` when it is none or names no offset from UTC.
    """
    try:
        # 3.10 reads neither 'Z' nor a fraction that is not 3 or 6 digits; a '+' in a query string arrives as a space.
        moment = datetime.fromisoformat(text.strip().upper().replace("Z", "+00:00").replace(" ", "+"))
        since_epoch = moment - _EPOCH
    except (ValueError, TypeError, OverflowError) as error:
        raise GradwatchError(
            "invalid-parameter", where=where, expected="a time such as 2026-01-31T12:00:00Z", got=repr(text[:40])
        ) from error
    return ((since_epoch.days * 86_400 + since_epoch.seconds) * 1_000_000 + since_epoch.microseconds) * 1_000


def encode(document: Any) -> bytes:
    """UTF-8 JSON; a float that is not finite is a bug here (ValueError), never an invalid document.

    A lone surrogate cannot be UTF-8; `backslashreplace` writes it as the JSON escape that it is.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


class Answer(JSONResponse):
    """A JSON response of an already plain document, or of one already written (bytes).

    FastAPI describes a route's answer by its model only where the response is a JSONResponse.
    """

    def render(self, content: Any) -> bytes:
        """Body bytes."""
        return content if isinstance(content, bytes) else encode(content)


def medians_by_level(blocks: Iterable[SignalBlock], key: SignalKey) -> dict[int, tuple[int, float]]:
    """Of a signal over some rows: level → how many rows measured it there, finite, and their median."""
    found: dict[int, list[float]] = {}
    for block in blocks:
        if key not in block.signals:
            continue
        place = block.signals.index(key)
        usable = (block.status[place] == 0) & np.isfinite(block.values[place])
        for level, value in zip(block.level[usable].tolist(), block.values[place][usable].tolist(), strict=True):
            found.setdefault(level, []).append(value)
    return {level: (len(values), float(np.median(values))) for level, values in found.items()}
