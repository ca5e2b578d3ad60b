"""What the API answers of several signals over one axis. See `models`."""

from pydantic import Field

from gradwatch_daemon.api.models import Coverage, Model, Number, Time


class ChartSeries(Model):
    """One signal of a chart. `last` is the last measured value of each point; low and high are over its finite values."""

    signal: str
    subject: str
    unit: str
    estimator: str
    window: str
    low: list[Number] | None = Field(description="null: points are single updates, low and high are `last`")
    high: list[Number] | None = Field(description="null: points are single updates, low and high are `last`")
    last: list[Number]
    nonfinite: list[int] = Field(description="How many values of each point were measured and not finite")
    status: list[str]


class ChartAnswer(Model):
    """Several signals over the same points: single updates (`bucket` 1), or buckets of `bucket` consecutive ones."""

    run: str
    attempt: int
    rank: int | None = Field(description="null: all ranks together")
    bucket: int
    update: list[int] = Field(description="First update of each point")
    at: list[Time]
    env_steps: list[int | None] = Field(description="null where the trainer did not give it")
    series: list[ChartSeries] = Field(description="In the order asked for, without the absent ones")
    absent: list[str] = Field(description="Signals that this run never sent")
    rows: int = Field(description="Stored rows in the range asked for")
    coverage: Coverage
