"""What POST /replay takes and answers; `gradwatch replay --json` prints the same document. See `models`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gradwatch_daemon.api.models import AnomalyItem, Coverage, DetectorCounts, DetectorStanding, Model


class ReplayBody(BaseModel):
    """What POST /replay takes."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={"examples": [{"run": "ant-ppo", "thresholds": {"kl_extreme": {"k3": 0.8}}, "diff": "live"}]},
    )

    run: str
    profile: str | None = Field(default=None, description="null = the profile of this daemon")
    thresholds: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="Detector kind → threshold → number, over those this daemon is configured with"
    )
    first: int | None = Field(default=None, alias="from", ge=0, description="First update to replay; null = the first stored")
    last: int | None = Field(default=None, alias="to", ge=0, description="Last update to replay; null = the last stored")
    diff: str | None = Field(default=None, description="live, or a profile: also say what differs from it")


class ReplayedStream(Model):
    """One attempt and rank as it was replayed, in order of arrival."""

    attempt: int
    rank: int | None = Field(description="null: all ranks together")
    rows: int
    update_first: int | None = Field(description="null where no row was replayed")
    update_last: int | None = Field(description="null where no row was replayed")
    unseen: int = Field(description="Rows before those replayed: outside the window, or no longer stored")
    backward: int = Field(description="Rows whose update was not after the one before")
    missing: int = Field(description="Updates left out between two rows")
    trouble: str = Field(description="Why it ended early; empty where it did not")
    standings: list[DetectorStanding] = Field(description="After the last row")


class AnomalyPair(Model):
    """One finding on both sides."""

    before: AnomalyItem
    after: AnomalyItem


class ReplayDifference(Model):
    """The replay beside what live found, or beside another profile."""

    against: str = Field(description="live, or the name of a profile")
    new: list[AnomalyItem] = Field(description="Found by the replay only")
    lost: list[AnomalyItem] = Field(description="Found by the other only")
    moved: list[AnomalyPair] = Field(description="One kind and subject, another onset")
    changed: list[AnomalyPair] = Field(description="One onset; another severity, count, end or number")
    same: int = Field(description="Anomalies that are equal on both sides, bit for bit")


class ReplayAnswer(Model):
    """What detection makes of the stored rows of a run. Nothing was written."""

    run: str
    profile: str
    rules_hash: str
    rows: int
    lost: int = Field(description="Records of the run that never came")
    coverage: Coverage = Field(description="Of the whole run as stored, whatever part of it was replayed")
    seconds: float = Field(description="Time the replay took, reading included")
    verdict: Literal["findings", "clean", "inconclusive"] = Field(
        description="findings: an anomaly of warning or above; clean: none, and every detector could see all of it"
    )
    inconclusive: list[str] = Field(description="Why finding nothing would not mean that there was nothing")
    notes: list[str]
    items: list[AnomalyItem]
    detectors: DetectorCounts = Field(description="Over all attempts and ranks replayed")
    streams: list[ReplayedStream]
    difference: ReplayDifference | None = Field(description="null where none was asked for")
