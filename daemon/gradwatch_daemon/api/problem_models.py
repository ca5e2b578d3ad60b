"""The problem document, as /openapi.json describes it; `problems` writes it."""

from pydantic import ConfigDict, Field

from gradwatch_daemon.api.models import Model


class FieldError(Model):
    """One field that is wrong: `pointer` is its place, as `query/limit` or `body/updates`."""

    pointer: str
    message: str
    did_you_mean: str | None = None


class Problem(Model):
    """An error, after RFC 9457."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:gradwatch:problem:run-not-found",
                    "title": "No run has this name.",
                    "status": 404,
                    "detail": "run: expected a run that this daemon knows, got 'ant-pp'",
                    "instance": "/api/v1/runs/ant-pp",
                    "code": "run-not-found",
                    "hint": "List the runs with `gradwatch runs`.",
                    "did_you_mean": "ant-ppo",
                    "errors": [],
                }
            ]
        }
    )

    type: str = Field(description="urn:gradwatch:problem: and the code")
    title: str
    status: int
    detail: str = Field(description="Where, what was expected, what came")
    instance: str = Field(description="Path of the request")
    code: str = Field(description="Stable slug; its meaning never changes")
    hint: str = Field(description="What to do next")
    did_you_mean: str | None = Field(description="The nearest known word, null when none is near")
    errors: list[FieldError]
