"""From bytes of a peer to records that count: decode, check, dedupe, find gaps. Everything behind it is trusted.

Pure but for the counters: it returns what to do (`Passed`, replies), and never touches the socket or the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts import PROTOCOL_MAJOR, limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import check_rows, decode
from gradwatch_contracts.columns import Schema
from gradwatch_contracts.errors import ContractError
from gradwatch_contracts.frame import FrameType
from gradwatch_daemon.ingest.session import SCHEMAS_MAX
from gradwatch_daemon.records import EventRecord, LossRecord, RowBlock, TableRecord

if TYPE_CHECKING:
    from gradwatch_daemon.ingest.session import LiveSession, Sessions
    from gradwatch_daemon.records import Counters, Stream


@dataclass(slots=True)
class Passed:
    """What came through in one tick, in order of arrival within each kind; `replies` go out at once."""

    rows: list[RowBlock] = field(default_factory=list)
    events: list[EventRecord] = field(default_factory=list)
    tables: list[TableRecord] = field(default_factory=list)
    losses: list[LossRecord] = field(default_factory=list)
    results: list[tuple[Stream, m.Result | m.Artifact]] = field(default_factory=list)
    hellos: list[tuple[bytes, m.Hello]] = field(default_factory=list)
    byes: list[tuple[LiveSession, m.Bye]] = field(default_factory=list)
    replies: list[tuple[bytes, m.Message]] = field(default_factory=list)
    touched: dict[str, LiveSession] = field(default_factory=dict)


TYPE, SCHEMA = slice(5, 6), bytes([FrameType.SCHEMA])
"""Where a frame says what it is."""

RESULT_STATES = frozenset({"applied", "ended", "rejected"})


class Gate:
    """Admits frames. One bad frame costs its sender that frame; many in a short time cost it the connection."""

    def __init__(self, sessions: Sessions, counters: Counters) -> None:
        self._sessions = sessions
        self._counters = counters
        self._schemas: dict[bytes, Schema] = {}

    def admit(self, peer: bytes, frame: bytes, now_s: float, passed: Passed) -> None:
        """Check one frame of a peer and add what it holds to `passed`. Raises nothing, whatever the bytes."""
        self._counters.frames += 1
        if self._sessions.quarantined(peer, now_s):
            self._count("quarantined")
            return
        try:
            if frame[TYPE] == SCHEMA:
                self._take_schema(peer, frame, now_s, passed)
            else:
                self._dispatch(peer, decode(frame), now_s, passed)
        except ContractError as error:
            self._refuse(peer, error, now_s, passed)

    def _refuse(self, peer: bytes, error: ContractError, now_s: float, passed: Passed) -> None:
        self._count(error.code.slug)
        if self._sessions.blame(peer, now_s):
            self._counters.quarantines += 1
            passed.replies.append((peer, m.Refuse("quarantined", error.detail)))
            return
        final = error.code.slug == "protocol-unsupported"
        passed.replies.append((peer, m.Refuse(error.code.slug, error.detail, (PROTOCOL_MAJOR,), final)))

    def _count(self, slug: str) -> None:
        self._counters.refused[slug] = self._counters.refused.get(slug, 0) + 1

    def _dispatch(self, peer: bytes, message: m.Message, now_s: float, passed: Passed) -> None:
        if isinstance(message, m.Hello):
            passed.hellos.append((peer, message))
            return
        session = self._greeted(peer, now_s, passed)
        if session is None:
            return
        if isinstance(message, m.Samples):
            self._take_rows(session, message, passed)
        elif isinstance(message, m.Ping):
            passed.replies.append((peer, m.Pong(message.t_ns)))
        elif isinstance(message, m.Bye):
            self._take_bye(session, message, passed)
        elif isinstance(message, m.Loss):
            self._take_loss(session, message, passed)
        elif isinstance(message, (m.Event, m.Table, m.Result, m.Artifact)):
            self._take_record(session, message, passed)
        elif not isinstance(message, m.Pong):
            raise ContractError(
                "body-malformed", where=type(message).__name__, expected="a message of an agent", got="one of a daemon"
            )

    def _greeted(self, peer: bytes, now_s: float, passed: Passed) -> LiveSession | None:
        """The session of a peer that is heard; a peer without one is asked to greet."""
        session = self._sessions.of_peer(peer)
        if session is None:
            self._count("not-greeted")
            passed.replies.append((peer, m.Rehello()))
        else:
            session.heard_s = now_s
        return session

    def _take_schema(self, peer: bytes, frame: bytes, now_s: float, passed: Passed) -> None:
        """Trainers of one kind send the same bytes: read once, kept once."""
        schema = self._schemas.get(frame)
        if schema is None:
            message = decode(frame)
            if not isinstance(message, m.SchemaMessage):
                raise ContractError("internal", where="SCHEMA", expected="a schema", got=type(message).__name__)
            if len(self._schemas) >= SCHEMAS_MAX:
                del self._schemas[next(iter(self._schemas))]
            schema = self._schemas[frame] = Schema.of(message.columns)
        session = self._greeted(peer, now_s, passed)
        if session is not None:
            session.learn(schema)

    def _in_order(self, session: LiveSession, first_seq: int, count: int, passed: Passed) -> int | None:
        """Duplicates to skip, or None when records before these are missing: then the agent is asked to resend."""
        skip = session.accept(first_seq, count)
        if skip is None:
            self._count("gap")
            if not session.asked_to_resend:
                session.asked_to_resend = True
                passed.replies.append((session.peer, m.Rehello()))
            return None
        passed.touched[session.id] = session
        return skip

    def _take_rows(self, session: LiveSession, rows: m.Samples, passed: Passed) -> None:
        schema = session.schemas.get(rows.schema)
        if schema is None:
            raise ContractError("schema-unknown", where="SAMPLES.schema", expected="one sent before", got=rows.schema)
        check_rows(rows, schema)
        skip = self._in_order(session, rows.first_seq, rows.n, passed)
        if skip is not None and skip < rows.n:
            self._counters.rows += rows.n - skip
            passed.rows.append(row_block(session.stream, session.id, schema, rows, skip))

    def _take_record(self, session: LiveSession, message: m.Event | m.Table | m.Result | m.Artifact, passed: Passed) -> None:
        if isinstance(message, m.Result) and message.state not in RESULT_STATES:
            expected = ", ".join(sorted(RESULT_STATES))
            raise ContractError("body-malformed", where="RESULT.state", expected=expected, got=repr(message.state))
        if isinstance(message, m.Artifact):
            check_chunk(message)
        if self._in_order(session, message.seq, 1, passed) != 0:
            return
        stream = session.stream
        if isinstance(message, m.Event):
            passed.events.append(
                EventRecord(
                    stream, session.id, message.seq, message.update, message.t_ns, message.kind, message.text, message.detail
                )
            )
        elif isinstance(message, m.Table):
            passed.tables.append(_table(stream, session.id, message))
        else:
            passed.results.append((stream, message))

    def _take_bye(self, session: LiveSession, bye: m.Bye, passed: Passed) -> None:
        """What the trainer had no time to send before it ended never comes: that is a loss, and told."""
        missing = bye.last_seq - session.last_seq
        if missing > limits.LOSS_RECORDS_MAX:
            raise ContractError(
                "body-malformed",
                where="BYE.last_seq",
                expected=f"at most {limits.LOSS_RECORDS_MAX} records after {session.last_seq}",
                got=str(bye.last_seq),
            )
        if missing > 0:
            self._take_loss(session, m.Loss(session.last_seq + 1, bye.last_seq, "not sent before the end"), passed)
        passed.byes.append((session, bye))

    def _take_loss(self, session: LiveSession, loss: m.Loss, passed: Passed) -> None:
        if not loss.first_seq <= loss.last_seq < loss.first_seq + limits.LOSS_RECORDS_MAX:
            raise ContractError(
                "body-malformed",
                where="LOSS.last_seq",
                expected=f"{loss.first_seq} and at most {limits.LOSS_RECORDS_MAX} records on",
                got=str(loss.last_seq),
            )
        count = loss.last_seq - loss.first_seq + 1
        skip = self._in_order(session, loss.first_seq, count, passed)
        if skip is not None and skip < count:
            passed.losses.append(LossRecord(session.stream, session.id, loss.first_seq + skip, loss.last_seq, loss.reason))


def check_chunk(chunk: m.Artifact) -> None:
    """Refuse a chunk that belongs to no file we take: all but the last are full, and there are not too many.

    Raises:
        ContractError: `body-malformed`, with what was expected.
    """
    most, full = limits.ARTIFACT_BYTES_MAX // limits.ARTIFACT_CHUNK_BYTES, limits.ARTIFACT_CHUNK_BYTES
    last = chunk.index == chunk.count - 1
    if not (chunk.index < chunk.count <= most and (len(chunk.data) <= full if last else len(chunk.data) == full)):
        raise ContractError(
            "body-malformed",
            where="ARTIFACT",
            expected=f"at most {most} chunks of {full} bytes, the last one shorter",
            got=f"chunk {chunk.index} of {chunk.count} with {len(chunk.data)} bytes",
        )


def _table(stream: Stream, session: str, message: m.Table) -> TableRecord:
    size = 8 * len(message.index) * len(message.names)
    if len(message.values) != size:
        raise ContractError(
            "schema-mismatch", where="TABLE.values", expected=f"{size} bytes", got=f"{len(message.values)} bytes"
        )
    return TableRecord(stream, session, message.seq, message.kind, message.update, message.index, message.names, message.values)


def row_block(stream: Stream, session: str, schema: Schema, rows: m.Samples, skip: int = 0) -> RowBlock:
    """View the raw arrays of a SAMPLES message as columns of numbers, without the first `skip` rows."""
    n = rows.n
    status = (
        np.zeros((n, len(schema.columns)), np.uint8)
        if rows.status is None
        else np.frombuffer(rows.status, np.uint8).reshape(n, -1)
    )
    return RowBlock(
        stream,
        session,
        (rows.first_seq + skip, rows.first_seq + n - 1),
        schema,
        np.frombuffer(rows.update, "<i8")[skip:],
        np.frombuffer(rows.t_ns, "<i8")[skip:],
        np.frombuffer(rows.env_steps, "<i8")[skip:],
        np.frombuffer(rows.level, np.uint8)[skip:],
        np.frombuffer(rows.flags, np.uint8)[skip:],
        np.frombuffer(rows.values, "<f8").reshape(n, schema.slots)[skip:],
        status[skip:],
    )


def join_rows(blocks: list[RowBlock]) -> list[RowBlock]:
    """Concatenate neighbouring blocks of one stream and schema, so that later stages run once over many rows.

    Order within a stream is kept; streams are independent of each other.
    """
    by_stream: dict[Stream, list[list[RowBlock]]] = {}
    for block in blocks:
        runs = by_stream.setdefault(block.stream, [])
        if runs and (runs[-1][0].schema.id, runs[-1][0].session) == (block.schema.id, block.session):
            runs[-1].append(block)
        else:
            runs.append([block])
    return [_concatenate(run) for runs in by_stream.values() for run in runs]


def _concatenate(blocks: list[RowBlock]) -> RowBlock:
    if len(blocks) == 1:
        return blocks[0]
    names = ("update", "t_ns", "env_steps", "level", "flags", "values", "status")
    joined = [np.concatenate([getattr(block, name) for block in blocks]) for name in names]
    first, last = blocks[0], blocks[-1]
    return RowBlock(first.stream, first.session, (first.seqs[0], last.seqs[1]), first.schema, *joined)
