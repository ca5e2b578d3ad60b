"""The frozen records that stages hand to each other: what every stage needs is here, the rest in the module of its subject."""

from gradwatch_daemon.records.anomaly import Anomaly, Attached
from gradwatch_daemon.records.blocks import ALL_RANKS, F32, F64, I64, U8, RowBlock, SignalBlock, SignalKey, Stream
from gradwatch_daemon.records.commands import Escalation
from gradwatch_daemon.records.commit import Checkpoint, Commit, Counters, Published
from gradwatch_daemon.records.events import EventRecord, LossRecord, TableRecord
from gradwatch_daemon.records.run import DetectorState, Newest, Run, RunView, Session
from gradwatch_daemon.records.verdicts import Numbers, Verdict, Verdicts

__all__ = [
    "ALL_RANKS",
    "F32",
    "F64",
    "I64",
    "U8",
    "Anomaly",
    "Attached",
    "Checkpoint",
    "Commit",
    "Counters",
    "DetectorState",
    "Escalation",
    "EventRecord",
    "LossRecord",
    "Newest",
    "Numbers",
    "Published",
    "RowBlock",
    "Run",
    "RunView",
    "Session",
    "SignalBlock",
    "SignalKey",
    "Stream",
    "TableRecord",
    "Verdict",
    "Verdicts",
]
