"""Records as table rows and back.

What SQLite cannot hold is written so that it comes back exactly: it turns NaN into NULL, so a float that is not finite is
the text "NaN", "Infinity" or "-Infinity" in a column without a type; its integers end at 2**63, so a larger seq is decimal
text. Maps and lists are JSON as Python writes it, where the bare tokens NaN and Infinity are numbers.
"""

from __future__ import annotations

import json
import math
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import ControlState, Level, Severity
from gradwatch_daemon.records import (
    Anomaly,
    Attached,
    Escalation,
    EventRecord,
    LossRecord,
    Run,
    Session,
    Stream,
    TableRecord,
)
from gradwatch_daemon.records.attention import Acknowledgement, Attention, Silence
from gradwatch_daemon.store.control import ranks_cell, ranks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[Any, ...]

RUN = (
    "run",
    "attempt",
    "launch_id",
    "run_group",
    "tags",
    "labels",
    "config",
    "updates_total",
    "world",
    "state",
    "base",
    "pin",
    "revision",
    "first_seen_ns",
    "last_seen_ns",
    "evidence",
)
SESSION = ("session", "stream", "launch_id", "last_seq", "host", "pid", "verbs")
ANOMALY = (
    "id",
    "run",
    "attempt",
    "rank",
    "kind",
    "subject",
    "severity",
    "state",
    "update_onset",
    "update_fired",
    "update_last",
    "update_resolved",
    "count",
    "value",
    "limit_value",
    "baseline",
    "minibatch",
    "stage",
    "sentence",
    "attached",
    "tries",
    "rules_hash",
    "t_ns",
)
ANOMALY_TEXT = (
    "json_array(" + ", ".join(f"quote({c})" if c in ("value", "limit_value", "baseline") else c for c in ANOMALY) + ")"
)
"""SQL of an anomaly row as one line of text that tells rows apart; its first element is the id.

`quote` writes a float so that it is told from its neighbour, which JSON of SQLite does not; it is for comparing, not decoding.
"""
ESCALATION = (
    "run",
    "id",
    "level",
    "updates",
    "origin",
    "reason",
    "state",
    "requested_ns",
    "update_applied",
    "update_ended",
    "ended_why",
    "ranks",
    "expires_ns",
)
ATTENTION = ("anomaly", "seen_by", "seen_ns", "note", "silence")
SILENCE = (
    "id",
    "run",
    "kind",
    "subject",
    "reason",
    "author",
    "created_ns",
    "expires_ns",
    "ended_ns",
    "muted",
)
EVENT = ("stream", "session", "seq", "update_at", "t_ns", "kind", "text", "detail")
LOSS = ("stream", "session", "first_seq", "last_seq", "reason")
EVIDENCE = ("stream", "session", "seq", "kind", "update_at", "row_index", "names", "data")


def number_cell(value: float) -> float | str:
    """A float for a column without a type."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def seq_cell(seq: int) -> int | str:
    """A seq, -1 to 2**64 - 1, for a column without a type."""
    return seq if seq < 2**63 else str(seq)


def run_row(run: Run) -> Row:
    """A `run` row, columns as in RUN."""
    return (
        run.run,
        run.attempt,
        run.launch_id,
        run.group,
        json.dumps(dict(run.tags)),
        json.dumps(dict(run.labels)),
        json.dumps(dict(run.config)),
        run.updates_total,
        run.world,
        run.state,
        int(run.base),
        None if run.pin is None else int(run.pin),
        run.revision,
        run.first_seen_ns,
        run.last_seen_ns,
        run.evidence,
    )


def run_of(row: Sequence[Any]) -> Run:
    """The run in a RUN row."""
    name, attempt, launch, group, tags, labels, config, total, world, state, base, pin, revision, *rest = row
    return Run(
        name,
        attempt,
        launch,
        group,
        json.loads(tags),
        json.loads(labels),
        json.loads(config),
        total,
        world,
        state,
        Level(base),
        None if pin is None else Level(pin),
        revision,
        *rest,
    )


def session_row(session: Session, stream: int) -> Row:
    """A `session` row, columns as in SESSION."""
    last_seq, verbs = seq_cell(session.last_seq), json.dumps(session.verbs)
    return session.session, stream, session.launch_id, last_seq, session.host, session.pid, verbs


def session_of(row: Sequence[Any], stream: Stream) -> Session:
    """The session in a SESSION row."""
    session, _, launch, last_seq, host, pid, verbs = row
    return Session(session, stream, launch, int(last_seq), host, pid, tuple(json.loads(verbs)))


def anomaly_row(anomaly: Anomaly) -> Row:
    """An `anomaly` row, columns as in ANOMALY."""
    attached = [[a.kind, a.subject, a.severity, a.update_onset, a.update_fired, a.value, a.limit] for a in anomaly.attached]
    return (
        anomaly.id,
        anomaly.run,
        anomaly.attempt,
        anomaly.rank,
        anomaly.kind,
        anomaly.subject,
        anomaly.severity.value,
        anomaly.state,
        anomaly.update_onset,
        anomaly.update_fired,
        anomaly.update_last,
        anomaly.update_resolved,
        anomaly.count,
        number_cell(anomaly.value),
        number_cell(anomaly.limit),
        None if anomaly.baseline is None else number_cell(anomaly.baseline),
        anomaly.minibatch,
        anomaly.stage,
        anomaly.sentence,
        json.dumps(attached),
        json.dumps(anomaly.tries),
        anomaly.rules_hash,
        anomaly.t_ns,
    )


def attached_begin(kind: str) -> str:
    """What the text of the column `attached` holds where, and only where, a finding of this kind is attached."""
    return f"[{json.dumps(kind)}, "


def anomaly_of(row: Sequence[Any]) -> Anomaly:
    """The anomaly in an ANOMALY row."""
    id_, run, attempt, rank, kind, subject, severity, state, *updates_and_count = row[:13]
    value, limit, baseline, minibatch, stage, sentence, attached, tries, rules_hash, t_ns = row[13:]
    onset, fired, last, resolved, count = updates_and_count
    return Anomaly(
        id_,
        run,
        attempt,
        rank,
        kind,
        subject,
        Severity(severity),
        state,
        onset,
        fired,
        last,
        resolved,
        count,
        float(value),
        float(limit),
        None if baseline is None else float(baseline),
        minibatch,
        stage,
        sentence,
        tuple(Attached(a[0], a[1], Severity(a[2]), *a[3:]) for a in json.loads(attached)),
        tuple(json.loads(tries)),
        rules_hash,
        t_ns,
    )


def escalation_row(escalation: Escalation) -> Row:
    """An `escalation` row, columns as in ESCALATION."""
    return (
        escalation.run,
        escalation.id,
        int(escalation.level),
        escalation.updates,
        escalation.origin,
        escalation.reason,
        escalation.state.value,
        escalation.requested_ns,
        escalation.update_applied,
        escalation.update_ended,
        escalation.ended_why,
        ranks_cell(escalation.ranks),
        escalation.expires_ns,
    )


def escalation_of(row: Sequence[Any]) -> Escalation:
    """The escalation in an ESCALATION row that is followed by its kind."""
    run, id_, level, updates, origin, reason, state, requested_ns, applied, ended, why, ranks, expires_ns, kind = row
    asked = id_, run, Level(level), updates, origin, reason, ControlState(state), requested_ns
    return Escalation(*asked, applied, ended, why, ranks_of(ranks), expires_ns, kind)


def attention_row(attention: Attention) -> Row:
    """An `attention` row, columns as in ATTENTION."""
    seen = attention.acknowledged
    return (attention.anomaly, *((None, None, None) if seen is None else (seen.by, seen.at_ns, seen.note)), attention.silence)


def attention_of(row: Sequence[Any]) -> Attention:
    """What people did about an anomaly, in an ATTENTION row."""
    anomaly, by, at_ns, note, silence = row
    return Attention(anomaly, None if by is None else Acknowledgement(by, at_ns, note), silence)


def silence_row(silence: Silence) -> Row:
    """A `silence` row, columns as in SILENCE: the fields of the record, in their order."""
    return astuple(silence)


def silence_of(row: Sequence[Any]) -> Silence:
    """The silence in a SILENCE row."""
    return Silence(*row)


def event_row(event: EventRecord, stream: int) -> Row:
    """An `event` row, columns as in EVENT."""
    detail = json.dumps(dict(event.detail))
    return stream, event.session, seq_cell(event.seq), event.update, event.t_ns, event.kind, event.text, detail


def event_of(row: Sequence[Any], stream: Stream) -> EventRecord:
    """The event in an EVENT row."""
    _, session, seq, update, t_ns, kind, text, detail = row
    return EventRecord(stream, session, int(seq), update, t_ns, kind, text, json.loads(detail))


def loss_row(loss: LossRecord, stream: int) -> Row:
    """A `loss` row, columns as in LOSS."""
    return stream, loss.session, seq_cell(loss.first_seq), seq_cell(loss.last_seq), loss.reason


def loss_of(row: Sequence[Any], stream: Stream) -> LossRecord:
    """The loss in a LOSS row."""
    _, session, first_seq, last_seq, reason = row
    return LossRecord(stream, session, int(first_seq), int(last_seq), reason)


def table_row(table: TableRecord, stream: int) -> Row:
    """An `evidence` row, columns as in EVIDENCE."""
    index, names = json.dumps(table.index), json.dumps(table.names)
    return stream, table.session, seq_cell(table.seq), table.kind, table.update, index, names, table.values


def table_of(row: Sequence[Any], stream: Stream) -> TableRecord:
    """The table in an EVIDENCE row."""
    _, session, seq, kind, update, index, names, values = row
    return TableRecord(stream, session, int(seq), kind, update, tuple(json.loads(index)), tuple(json.loads(names)), values)
