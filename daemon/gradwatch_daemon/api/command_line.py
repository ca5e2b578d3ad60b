"""What each verb of the command line prints with `--json`: the models of the API, and the few documents of its own.

The command line itself needs none of this, so that it works without the daemon extra; tests hold the two together.
"""

import json
from typing import Any, Union

from pydantic import Field, TypeAdapter

from gradwatch_daemon.api import access_models as access
from gradwatch_daemon.api import attention_models as attention
from gradwatch_daemon.api import control_models as control
from gradwatch_daemon.api import models
from gradwatch_daemon.api import notify_models as notify
from gradwatch_daemon.api import service_models as service
from gradwatch_daemon.api.evidence_models import AnomalyDetail
from gradwatch_daemon.api.models import Coverage, Model, Time
from gradwatch_daemon.api.replay_models import ReplayAnswer
from gradwatch_daemon.api.run_models import RunDetail


class StatusDocument(models.RunList):
    """`gradwatch status`: the daemon and all its runs."""

    url: str
    daemon: service.DaemonAnswer


class AnomalyDocument(models.AnomalyList):
    """`gradwatch anomalies`: the newest that match."""

    more: bool = Field(description="Whether there are more than --limit")


class ExplainDocument(Model):
    """`gradwatch explain`: a kind, and the anomaly if an id was given."""

    profile: str
    detector: service.DetectorItem | None = Field(description="null where the profile in use has none of this kind")
    anomaly: AnomalyDetail | None
    moment: list[models.SeriesAnswer] = Field(
        description="What its detector reads, around the update it fired at; empty for a kind"
    )


class AilmentItem(Model):
    """One mistake: what is wrong, how that shows, what to do."""

    code: str
    what: str
    why: str
    next_step: str
    run: str = Field(description="Empty where it is not about one run")
    grave: bool = Field(description="false: worth knowing, no more")


class DoctorDocument(Model):
    """`gradwatch doctor`."""

    looked_at: list[str]
    ailments: list[AilmentItem]


class HealthDocument(service.LiveAnswer):
    """`gradwatch health`."""

    url: str


class VersionDocument(Model):
    """`gradwatch version`."""

    version: str
    protocol: int
    python: str


class ConfigItem(Model):
    """One key of the configuration and where its value is from."""

    key: str
    value: Any
    origin: str = Field(examples=["default", "variable GRADWATCH_HTTP"])


class ConfigDocument(Model):
    """`gradwatch config`."""

    items: list[ConfigItem]
    rules_hash: str


class TokenDocument(Model):
    """`gradwatch token`: the owner's."""

    url: str
    token: str


class LinkDocument(Model):
    """`gradwatch token link`: an address that signs in to the dashboard once."""

    url: str
    expires_at: Time


class ImportedKey(Model):
    """One key of a log, and the signal it was read as."""

    key: str
    signal: str
    subject: str
    nonfinite: int
    nonfinite_first: int | None
    why: str


class ImportDocument(Model):
    """`gradwatch import`: what was read and stored, and the replay of it."""

    run: str
    path: str
    written_by: str
    attempts: list[int]
    rows: int
    rows_new: int
    update_first: int | None
    update_last: int | None
    keys: list[ImportedKey]
    skipped: dict[str, Any]
    damage: list[str]
    oddities: dict[str, int]
    notes: list[str]
    replay: ReplayAnswer | None


class SpooledSession(Model):
    """One session that a trainer could not send."""

    run: str
    session: str
    attempt: int
    rank: int
    records: int
    records_new: int
    ended: str
    unread_bytes: int


class UnreadSession(Model):
    """One session of which nothing can be told: no segment begins with a whole HELLO."""

    path: str
    bytes: int


class SpoolDocument(Model):
    """`gradwatch import` of a spool."""

    path: str
    sessions: list[SpooledSession]
    unread: list[UnreadSession] = Field(description="Folders of which neither the run nor the records are known")
    busy: list[str] = Field(description="Folders that a trainer still writes")


class ExportDocument(Model):
    """`gradwatch export RUN|ANOMALY`."""

    file: str
    format: str
    bytes: int
    rows: int
    run: str
    anomaly: str | None = Field(description="null for a run")
    rules_hash: str
    notes: list[str]
    coverage: Coverage


class BackupDocument(Model):
    """`gradwatch export --backup`."""

    file: str
    bytes: int
    source: str


class ErrorDocument(Model):
    """What a verb with `--json` says on stderr, as its last line, when it ends with an exit code of 1 to 5."""

    code: str = Field(
        description="As of problem+json; `usage` for a mistake on the command line itself", examples=["run-not-found"]
    )
    what: str
    why: str | None
    next: str | None = Field(description="What to do")
    did_you_mean: str | None
    exit_code: int


ASKED = control.CommandItem
ANSWERS: dict[str, Any] = {
    "status": Union[StatusDocument, RunDetail],
    "doctor": DoctorDocument,
    "health": HealthDocument,
    "version": VersionDocument,
    "config": ConfigDocument,
    "runs": Union[models.RunList, RunDetail],
    "signals": models.SignalList,
    "series": models.SeriesAnswer,
    "anomalies": Union[AnomalyDocument, models.AnomalyItem],
    "detectors": Union[service.DetectorList, service.DetectorItem],
    "explain": ExplainDocument,
    "escalate": control.EscalationItem,
    "ack": models.AnomalyItem,
    "level": Union[RunDetail, models.RunSummary],
    "calm": models.RunSummary,
    "silence": Union[attention.SilenceList, attention.SilenceItem],
    "notify": Union[notify.TriedList, notify.ChannelList, notify.DeliveryList],
    "stop": ASKED,
    "checkpoint": ASKED,
    "dump": ASKED,
    "profile": ASKED,
    "command": ASKED,
    "commands": Union[control.CommandList, ASKED],
    "token": Union[TokenDocument, LinkDocument, access.TokenMade, access.TokenItem, access.TokenList],
    "keys": Union[access.KeyMade, access.KeyItem, access.KeyList],
    "audit": access.AuditList,
    "replay": ReplayAnswer,
    "import": Union[ImportDocument, SpoolDocument],
    "export": Union[ExportDocument, BackupDocument],
}
"""Verb → what it prints. `anomalies --follow` prints one `AnomalyItem` a line."""


def command_schemas() -> dict[str, str]:
    """Verb → the JSON schema (2020-12) of its document, as text; under `error` that of what any of them ends with."""
    made = {}
    for verb, answer in {**ANSWERS, "error": ErrorDocument}.items():
        schema = TypeAdapter(answer).json_schema(by_alias=True, mode="serialization")
        title = "the last line of stderr of a failure with --json" if answer is ErrorDocument else f"gradwatch {verb} --json"
        head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
        made[verb] = json.dumps({**schema, **head}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return made
