"""One message of every kind with no field at its default, and strategies that make arbitrary ones."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from gradwatch_contracts import messages as m
from gradwatch_contracts.columns import Column, Kind, RankRule, Schema
from gradwatch_contracts.control import Active, Desired, Level

SCHEMA = Schema.of(
    [
        Column("policy.kl.k3", Kind.MOMENTS, RankRule.MERGE),
        Column("policy.entropy.limit", Kind.LAST, RankRule.EQUAL, "move"),
    ]
)
DESIRED = Desired(7, Level.MINIMAL, Level.DEBUG, (Active("ab-1", Level.DEBUG, 5), Active("cd-2", Level.NORMAL, 9)))

SAMPLES = m.Samples(
    first_seq=41,
    n=2,
    schema=SCHEMA.id,
    update=struct.pack("<2q", 12, 13),
    t_ns=struct.pack("<2q", 1_700_000_000_000_000_000, 1_700_000_000_020_000_000),
    env_steps=struct.pack("<2q", 4096, -1),
    level=bytes([2, 3]),
    flags=bytes([0, 1]),
    values=struct.pack("<8d", 128.0, 0.01, 0.5, 0.69, 128.0, float("nan"), float("inf"), float("-inf")),
    status=bytes([0, 0, 0, 4]),
)

EXAMPLES: dict[str, m.Message] = {
    "HELLO": m.Hello(
        run="ant-ppo",
        launch_id="launch-1",
        session="session-1",
        rank=3,
        world=4,
        host="node7",
        pid=4242,
        started_unix_ns=1_700_000_000_000_000_000,
        group="ablation",
        tags={"seed": "1"},
        labels={"env": "Ant-v5"},
        config={"lr": 3e-4, "epochs": 4, "anneal": True, "name": "x", "target_kl": None},
        updates_total=500,
        update_next=300,
        level=3,
        verbs=("level", "stop"),
        agent_version="0.1.0",
        secret="s3cret",
        replay=True,
    ),
    "WELCOME": m.Welcome(
        attempt=2, window_records=4096, last_seq=99, desired=DESIRED, daemon_version="0.1.0", window_bytes=65_536
    ),
    "REFUSE": m.Refuse("protocol-unsupported", "header.major: expected 1, got 2", (1,), final=False),
    "REHELLO": m.Rehello(),
    "SCHEMA": m.SchemaMessage(SCHEMA.columns),
    "SAMPLES": SAMPLES,
    "TABLE": m.Table(5, "episodes", 12, ("0", "1"), ("return", "length"), struct.pack("<4d", 1.0, 2.0, 3.0, 4.0)),
    "EVENT": m.Event(6, "exception", 13, 1_700_000_000_000_000_000, "ValueError: nan", {"type": "ValueError", "line": 7}),
    "RESULT": m.Result(7, "ab-1", "applied", 14, "done"),
    "LOSS": m.Loss(8, 11, "outbox full"),
    "ARTIFACT": m.Artifact(12, "cmd-1", "trace.json", 0, 2, b"\x00\xff"),
    "BYE": m.Bye(12, "closed"),
    "ACK": m.Ack(41),
    "LEVEL": m.LevelMessage(DESIRED),
    "COMMAND": m.Command("cmd-1", "dump", {"updates": 3}, 20, 1_700_000_100_000_000_000),
    "PING": m.Ping(123),
    "PONG": m.Pong(123),
}

_INT64 = st.integers(-(2**63), 2**63 - 1)
_SEQ = st.integers(0, 2**64 - 1)
_NAME = st.text(min_size=1, max_size=128)
_TEXT = st.text(max_size=200)
_SCALAR = st.one_of(st.none(), st.booleans(), _INT64, st.floats(allow_nan=False), _TEXT)
_SCALARS = st.dictionaries(_TEXT, _SCALAR, max_size=4)
_TEXTS = st.dictionaries(_TEXT, _TEXT, max_size=4)
_NATURAL = st.integers(0, 2**63 - 1)
_ID = st.text(min_size=1, max_size=64)
_LEVEL = st.sampled_from(Level)
_DESIRED = st.builds(
    Desired,
    _NATURAL,
    _LEVEL,
    st.none() | _LEVEL,
    st.lists(st.builds(Active, _ID, _LEVEL, st.integers(1, 1_000_000)), max_size=3).map(tuple),
)


@st.composite
def _samples(draw: st.DrawFn) -> m.Samples:
    n, slots, columns = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    sized = lambda size: draw(st.binary(min_size=size, max_size=size))  # noqa: E731 - six uses, one line each
    return m.Samples(
        draw(_SEQ),
        n,
        draw(st.text("0123456789abcdef", min_size=16, max_size=16)),
        sized(8 * n),
        sized(8 * n),
        sized(8 * n),
        bytes(draw(st.lists(_LEVEL, min_size=n, max_size=n))),
        sized(n),
        sized(8 * n * slots),
        draw(st.none() | st.binary(min_size=n * columns, max_size=n * columns)),
    )


_COLUMNS = st.lists(
    st.builds(Column, _NAME, st.sampled_from(Kind), st.sampled_from(RankRule), st.text(max_size=128)),
    min_size=1,
    max_size=4,
    unique_by=lambda column: column.key,
).map(tuple)

MESSAGES: st.SearchStrategy[m.Message] = st.one_of(
    st.builds(
        m.Hello,
        run=_ID,
        launch_id=_NAME,
        session=_ID,
        rank=st.integers(0, 1_000_000),
        world=st.integers(1, 1_000_000),
        host=st.text(max_size=255),
        pid=_NATURAL,
        started_unix_ns=_NATURAL,
        group=st.text(max_size=128),
        tags=_TEXTS,
        labels=_TEXTS,
        config=_SCALARS,
        updates_total=st.none() | st.integers(1, 2**63 - 1),
        update_next=_NATURAL,
        level=_LEVEL,
        verbs=st.lists(_NAME, max_size=3).map(tuple),
        agent_version=st.text(max_size=128),
        secret=st.text(max_size=128),
        replay=st.booleans(),
    ),
    st.builds(
        m.Welcome,
        st.integers(1, 2**63 - 1),
        st.integers(1, 2**63 - 1),
        st.integers(-1, 2**64 - 1),
        _DESIRED,
        st.text(max_size=128),
    ),
    st.builds(m.Refuse, _NAME, _TEXT, st.lists(st.integers(0, 255), max_size=3).map(tuple), st.booleans()),
    st.just(m.Rehello()),
    st.builds(m.SchemaMessage, _COLUMNS),
    _samples(),
    st.builds(
        m.Table,
        _SEQ,
        _NAME,
        _NATURAL,
        st.lists(st.text(max_size=128), max_size=3).map(tuple),
        st.lists(_NAME, max_size=3).map(tuple),
        st.binary(max_size=64),
    ),
    st.builds(m.Event, _SEQ, _NAME, _NATURAL, _NATURAL, _TEXT, _SCALARS),
    st.builds(m.Result, _SEQ, _ID, _NAME, _NATURAL, _TEXT),
    st.builds(m.Loss, _SEQ, _SEQ, _NAME),
    st.builds(m.Artifact, _SEQ, _ID, _NAME, _NATURAL, st.integers(1, 2**63 - 1), st.binary(max_size=64)),
    st.builds(m.Bye, st.integers(-1, 2**64 - 1), _TEXT),
    st.builds(m.Ack, st.integers(-1, 2**64 - 1)),
    st.builds(m.LevelMessage, _DESIRED),
    st.builds(m.Command, _ID, _NAME, _SCALARS, _NATURAL, _NATURAL),
    st.builds(m.Ping, _NATURAL),
    st.builds(m.Pong, _NATURAL),
)
