"""Messages to frames and back. Decoding checks every field and raises only `ContractError`.

Cold messages are msgpack maps keyed by field name; SAMPLES is a positional list whose arrays stay raw bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, cast

import msgpack

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.columns import Column, Kind, RankRule, Schema, Status
from gradwatch_contracts.control import Active, Desired, Level
from gradwatch_contracts.errors import ContractError
from gradwatch_contracts.frame import FrameType, decode_frame, encode_frame

INT64 = 2**63
SEQ_MAX = 2**64 - 1

Check = Callable[[object, str], Any]


def encode(message: m.Message) -> bytes:
    """Return the frame of a message.

    Raises:
        ContractError: `frame-too-large`, or `body-malformed` for a value msgpack cannot carry.
    """
    kind = _TYPE_OF[type(message)]
    names = _FIELD_NAMES[type(message)]
    values = [_plain(getattr(message, name)) for name in names]
    try:
        packed = msgpack.packb(values if kind in _POSITIONAL else dict(zip(names, values, strict=True)))
    except (TypeError, ValueError, OverflowError) as error:
        raise ContractError("body-malformed", where=kind.name, expected="plain values", got=str(error)[:120]) from error
    return encode_frame(kind, cast("bytes", packed))


def decode(frame: bytes) -> m.Message:
    """Return the message of a frame, every field checked.

    Raises:
        ContractError: whatever the bytes are, nothing else is raised.
    """
    kind, body = decode_frame(frame)
    cls = _CLASS_OF[kind]
    names = _FIELD_NAMES[cls]
    raw = _unpack(body, kind.name)
    if kind in _POSITIONAL:
        if not isinstance(raw, list) or len(raw) < len(names):
            raise _wrong(kind.name, f"a list of {len(names)}", raw)
        given: dict[str, object] = dict(zip(names, raw, strict=False))
    else:
        given = _map(raw, kind.name)
    values = {}
    for name, where, check, required in _FIELDS[kind]:
        if name in given:
            values[name] = check(given[name], where)
        elif required:
            raise ContractError("body-malformed", where=where, expected="a value", got="nothing")
    message = cast("m.Message", cls(**values))
    if isinstance(message, m.Samples):
        _check_lengths(message)
    return message


def _unpack(body: bytes, where: str) -> object:
    try:
        return msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            max_str_len=limits.BODY_STR_BYTES_MAX,
            max_bin_len=limits.BODY_BIN_BYTES_MAX,
            max_array_len=limits.BODY_ITEMS_MAX,
            max_map_len=limits.BODY_ITEMS_MAX,
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError, MemoryError) as error:
        raise ContractError(
            "body-malformed", where=where, expected="msgpack within the limits", got=f"{type(error).__name__}: {error}"[:160]
        ) from error


def _wrong(where: str, expected: str, got: object) -> ContractError:
    return ContractError("body-malformed", where=where, expected=expected, got=f"{type(got).__name__} {got!r}"[:120])


def _text(limit: int = limits.BODY_STR_BYTES_MAX, *, empty: bool = True) -> Check:
    def check(value: object, where: str) -> str:
        if isinstance(value, str) and len(value) <= limit and (value or empty):
            return value
        raise _wrong(where, f"text of {0 if empty else 1} to {limit} characters", value)

    return check


def _integer(low: int = -INT64, high: int = INT64 - 1) -> Check:
    def check(value: object, where: str) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise _wrong(where, f"an integer of {low} to {high}", value)

    return check


def _boolean(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(where, "true or false", value)


def _binary(value: object, where: str) -> bytes:
    if isinstance(value, bytes):
        return value
    raise _wrong(where, "binary", value)


def _optional(inner: Check) -> Check:
    return lambda value, where: None if value is None else inner(value, where)


def _map(value: object, where: str) -> dict[str, object]:
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value
    raise _wrong(where, "a map with text keys", value)


def _listed(value: object, where: str) -> list[object]:
    if isinstance(value, list):
        return value
    raise _wrong(where, "a list", value)


def _many(inner: Check) -> Check:
    return lambda value, where: tuple(inner(item, f"{where}[{i}]") for i, item in enumerate(_listed(value, where)))


def _texts(value: object, where: str) -> Mapping[str, str]:
    return {key: _text()(item, f"{where}.{key}") for key, item in _map(value, where).items()}


def _scalars(value: object, where: str) -> Mapping[str, m.Scalar]:
    given = _map(value, where)
    for key, item in given.items():
        if not (item is None or isinstance(item, (bool, int, float, str))):
            raise _wrong(f"{where}.{key}", "text, a number, true, false or nothing", item)
    return cast("Mapping[str, m.Scalar]", given)


def _level(value: object, where: str) -> Level:
    return Level(_integer(min(Level), max(Level))(value, where))


def _active(value: object, where: str) -> Active:
    id_, level, updates = _items(value, where, 3)
    later = _listed(value, where)[3:]
    return Active(
        _text(64, empty=False)(id_, f"{where}.id"),
        _level(level, f"{where}.level"),
        _integer(1, limits.ESCALATION_UPDATES_MAX)(updates, f"{where}.updates"),
        _integer(0)(later[0], f"{where}.not_before") if later else 0,
    )


def _desired(value: object, where: str) -> Desired:
    revision, base, pin, active = _items(value, where, 4)
    return Desired(
        _integer(0)(revision, f"{where}.revision"),
        _level(base, f"{where}.base"),
        _optional(_level)(pin, f"{where}.pin"),
        _many(_active)(active, f"{where}.active"),
        _integer(0)(later[0], f"{where}.not_before") if (later := _listed(value, where)[4:]) else 0,
    )


def _column(value: object, where: str) -> Column:
    name, subject, kind, rule = _items(value, where, 4)
    text = _text(limits.NAME_CHARS_MAX)
    try:
        return Column(text(name, where), Kind(kind), RankRule(rule), text(subject, where))
    except ValueError as error:
        raise _wrong(where, "a column kind and rank rule", (kind, rule)) from error


def _columns(value: object, where: str) -> tuple[Column, ...]:
    columns: tuple[Column, ...] = _many(_column)(value, where)
    return Schema.of(columns).columns


def _items(value: object, where: str, count: int) -> list[object]:
    items = _listed(value, where)
    if len(items) < count:
        raise _wrong(where, f"a list of {count}", value)
    return items[:count]


def _plain(value: object) -> object:
    """Records inside messages travel as short lists, grown only at the end."""
    if isinstance(value, Desired):
        later = [value.not_before] if value.not_before else []  # as before there was a fifth, where it may be at once
        return [value.revision, value.base, value.pin, [_escalation(active) for active in value.active], *later]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Column):
        return [value.name, value.subject, value.kind.value, value.rank_rule.value]
    return dict(value) if isinstance(value, Mapping) else value


def _escalation(active: Active) -> list[object]:
    """Of three items where it may begin at once, as before there was a fourth."""
    return [active.id, active.level, active.updates, *([active.not_before] if active.not_before else [])]


def _check_lengths(rows: m.Samples) -> None:
    n = rows.n
    _check_sizes(
        ("update", len(rows.update), 8 * n),
        ("t_ns", len(rows.t_ns), 8 * n),
        ("env_steps", len(rows.env_steps), 8 * n),
        ("level", len(rows.level), n),
        ("flags", len(rows.flags), n),
    )
    if rows.level.translate(None, _LEVELS):
        expected = f"0 to {len(_LEVELS) - 1}"
        raise ContractError("schema-mismatch", where="SAMPLES.level", expected=expected, got=str(max(rows.level)))


def check_rows(rows: m.Samples, schema: Schema) -> None:
    """Check that `values` and `status` fit the schema, and that every status is known.

    Raises:
        ContractError: `schema-mismatch`, naming the field and both sizes.
    """
    _check_sizes(("values", len(rows.values), 8 * rows.n * schema.slots))
    if rows.status is not None:
        _check_sizes(("status", len(rows.status), rows.n * len(schema.columns)))
        if rows.status.translate(None, _STATUSES):
            raise ContractError(
                "schema-mismatch", where="SAMPLES.status", expected=f"0 to {len(_STATUSES) - 1}", got=str(max(rows.status))
            )


def _check_sizes(*sizes: tuple[str, int, int]) -> None:
    for name, got, size in sizes:
        if got != size:
            raise ContractError("schema-mismatch", where=f"SAMPLES.{name}", expected=f"{size} bytes", got=f"{got} bytes")


# What is left of a row's bytes without these is what nobody knows: one pass in C, where `max` makes an object of each byte.
_LEVELS, _STATUSES = bytes(range(max(Level) + 1)), bytes(range(max(Status) + 1))
_POSITIONAL = frozenset({FrameType.SAMPLES})
_CLASS_OF: dict[FrameType, type] = {
    FrameType.HELLO: m.Hello,
    FrameType.WELCOME: m.Welcome,
    FrameType.REFUSE: m.Refuse,
    FrameType.REHELLO: m.Rehello,
    FrameType.SCHEMA: m.SchemaMessage,
    FrameType.SAMPLES: m.Samples,
    FrameType.TABLE: m.Table,
    FrameType.EVENT: m.Event,
    FrameType.RESULT: m.Result,
    FrameType.LOSS: m.Loss,
    FrameType.ARTIFACT: m.Artifact,
    FrameType.BYE: m.Bye,
    FrameType.ACK: m.Ack,
    FrameType.LEVEL: m.LevelMessage,
    FrameType.COMMAND: m.Command,
    FrameType.PING: m.Ping,
    FrameType.PONG: m.Pong,
}
_TYPE_OF = {cls: kind for kind, cls in _CLASS_OF.items()}
_FIELD_NAMES = {cls: tuple(f.name for f in fields(cls)) for cls in _TYPE_OF}
_seq = _integer(0, SEQ_MAX)
_name = _text(limits.NAME_CHARS_MAX, empty=False)
_short = _text(limits.NAME_CHARS_MAX)
_CHECKS: dict[FrameType, dict[str, Check]] = {
    FrameType.HELLO: {
        "run": _text(64, empty=False),
        "launch_id": _name,
        "session": _text(64, empty=False),
        "rank": _integer(0, 1_000_000),
        "world": _integer(1, 1_000_000),
        "host": _text(255),
        "pid": _integer(0),
        "started_unix_ns": _integer(0),
        "group": _short,
        "tags": _texts,
        "labels": _texts,
        "config": _scalars,
        "updates_total": _optional(_integer(1)),
        "update_next": _integer(0),
        "level": _level,
        "verbs": _many(_name),
        "agent_version": _short,
        "secret": _short,
        "replay": _boolean,
    },
    FrameType.WELCOME: {
        "attempt": _integer(1),
        "window_records": _integer(1),
        "last_seq": _integer(-1, SEQ_MAX),
        "desired": _desired,
        "daemon_version": _short,
        "window_bytes": _integer(1),
    },
    FrameType.REFUSE: {"code": _name, "detail": _text(), "supported": _many(_integer(0, 255)), "final": _boolean},
    FrameType.REHELLO: {},
    FrameType.SCHEMA: {"columns": _columns},
    FrameType.SAMPLES: {
        "first_seq": _seq,
        "n": _integer(1, limits.ROWS_PER_MESSAGE_MAX),
        "schema": _text(16, empty=False),
        **dict.fromkeys(("update", "t_ns", "env_steps", "level", "flags", "values"), _binary),
        "status": _optional(_binary),
    },
    FrameType.TABLE: {
        "seq": _seq,
        "kind": _name,
        "update": _integer(0),
        "index": _many(_short),
        "names": _many(_name),
        "values": _binary,
    },
    FrameType.EVENT: {
        "seq": _seq,
        "kind": _name,
        "update": _integer(0),
        "t_ns": _integer(0),
        "text": _text(),
        "detail": _scalars,
    },
    FrameType.RESULT: {
        "seq": _seq,
        "id": _text(64, empty=False),
        "state": _name,
        "update": _integer(0),
        "reason": _text(),
    },
    FrameType.LOSS: {"first_seq": _seq, "last_seq": _seq, "reason": _name},
    FrameType.ARTIFACT: {
        "seq": _seq,
        "id": _text(64, empty=False),
        "name": _name,
        "index": _integer(0),
        "count": _integer(1),
        "data": _binary,
    },
    FrameType.BYE: {"last_seq": _integer(-1, SEQ_MAX), "reason": _text()},
    FrameType.ACK: {"seq": _integer(-1, SEQ_MAX)},
    FrameType.LEVEL: {"desired": _desired},
    FrameType.COMMAND: {
        "id": _text(64, empty=False),
        "verb": _name,
        "args": _scalars,
        "not_before_update": _integer(0),
        "expires_unix_ns": _integer(0),
    },
    FrameType.PING: {"t_ns": _integer(0)},
    FrameType.PONG: {"t_ns": _integer(0)},
}
_FIELDS: dict[FrameType, tuple[tuple[str, str, Check, bool], ...]] = {
    kind: tuple(
        (f.name, f"{kind.name}.{f.name}", _CHECKS[kind][f.name], f.default is MISSING and f.default_factory is MISSING)
        for f in fields(cls)
    )
    for kind, cls in _CLASS_OF.items()
}
"""Of each message: its fields in order, what an error calls them, their checks, and whether they must be there."""
