"""What the API answers of the daemon itself: its catalogue, its state, its version. See `models`."""

from typing import Literal

from pydantic import Field

from gradwatch_daemon.api.models import Model, Number, SeverityName, Time


class ThresholdItem(Model):
    """One number a detector compares with. `default` is the profile's, before the configuration changed it. An infinite one is
    off until the configuration gives it a number."""

    name: str
    value: Number
    default: Number
    comparison: str = Field(description="How the value is compared with it", examples=[">"])
    unit: str
    meaning: str
    signal: str | None = Field(
        description="Signal whose own value is compared; null: a measure against the run's past, or no signal"
    )
    severity: SeverityName | None = Field(description="Of a breach on its own; null: one condition of several")


class NeedItem(Model):
    """A signal a detector reads, and the line in the trainer that feeds it."""

    signal: str
    call: str
    line: str
    optional: bool = Field(description="Without it the detector still judges")
    undefined: str = Field(description="What to do where it is sent but not defined; empty when nothing helps")


class VoteItem(Model):
    """Fires with severity `gives` when `k` of the last `n` updates breached at severity `at` or worse."""

    at: SeverityName
    k: int
    n: int
    gives: SeverityName


class DetectorItem(Model):
    """One anomaly kind this daemon looks for."""

    kind: str
    title: str
    meaning: str = Field(description="What it means for the training")
    severity: SeverityName
    needs: list[NeedItem]
    thresholds: list[ThresholdItem]
    votes: list[VoteItem]
    formula: str
    warm_up: str
    fails_when: str
    source: str = Field(description="Where rule and numbers come from")
    tries: list[str] = Field(alias="try")
    origin: str = Field(description="Package it comes from, with its version where that is another", examples=["gradwatch"])


class BrokenDetectorItem(Model):
    """A detector of an installed package that could not be loaded. It looks for nothing."""

    name: str = Field(description="Name of its entry point")
    origin: str
    reason: str


class DetectorList(Model):
    """The catalogue of the profile in use."""

    items: list[DetectorItem]
    next: str | None
    profile: str
    broken: list[BrokenDetectorItem] = Field(description="Detectors of other packages that are not there, and why")


class VersionAnswer(Model):
    """What runs here."""

    name: Literal["gradwatch"]
    version: str
    api: Literal["v1"]


class DataDirectory(Model):
    """Where runs are kept, and how full its file system is."""

    path: str
    free_bytes: int
    size_bytes: int


class DaemonAnswer(Model):
    """The daemon itself. Counts are since it started."""

    version: str
    protocol: int = Field(description="Major version of the wire protocol")
    profile: str
    pid: int
    started_at: Time
    now: Time = Field(description="The daemon's clock when it answered")
    ready: bool
    trouble: list[str] = Field(description="Why it is not ready; empty when it is")
    sqlite: str = Field(description="Version of the SQLite library", examples=["3.51.3"])
    data_dir: DataDirectory
    streams: int = Field(description="Clients of GET stream")
    frames: int
    rows: int
    refused: dict[str, int] = Field(description="Error code → frames and greetings refused with it")
    quarantines: int = Field(description="Times a sender was ignored for a while after many bad frames")
    commits: int
    commit_failures: int
    ack: Literal["committed", "synced"] = Field(description="What an ack to a trainer promises: docs/delivery.md")


class LiveAnswer(Model):
    """The event loop answers."""

    status: Literal["alive"]


class ReadyAnswer(Model):
    """Data can come in, be stored and be read."""

    status: Literal["ready"]
