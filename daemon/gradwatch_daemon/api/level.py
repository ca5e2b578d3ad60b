"""The level of a run: its base, and a pin that holds whatever is active."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gradwatch_contracts.control import Level, parse_level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest
from gradwatch_daemon.api import models
from gradwatch_daemon.api.events import Event
from gradwatch_daemon.api.hub import Client
from gradwatch_daemon.api.numbers import Answer
from gradwatch_daemon.api.parameters import RunName, find_run
from gradwatch_daemon.api.problems import ApiError, FieldFault
from gradwatch_daemon.api.runs import run_summary
from gradwatch_daemon.api.submission import submit
from gradwatch_daemon.records import RunView
from gradwatch_daemon.records.commands import SetLevel

WAIT_MAX_S = 30.0
_LEVELS = tuple(level.name.lower() for level in Level)

router = APIRouter(tags=["runs"])


class LevelBody(BaseModel):
    """What of the level shall change; a field that is not given stays as it is."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field(default="", description="Level that holds without escalations")
    pin: str | None = Field(default=None, description="Level that holds whatever is active; null lets go of it")
    revision: int | None = Field(
        default=None, strict=True, description="That of the level as you have seen it: with another in force it is refused"
    )


class RunBody(BaseModel):
    """What PATCH runs/{run} takes."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"level": {"base": "minimal"}}, {"level": {"pin": None}}]}
    )

    level: LevelBody


def read_body(run: str, body: LevelBody) -> SetLevel:
    """The request of a body.

    Raises:
        ApiError: `invalid-body`, with every field that is wrong, or where nothing is to change.
    """
    faults: list[FieldFault] = []
    given = body.model_fields_set

    def level(name: str, word: str | None) -> Level | None:
        if name not in given or word is None:
            return None
        try:
            return parse_level(word)
        except GradwatchError as error:
            said = f"expected {error.expected}, got {error.got}"
            faults.append(FieldFault(f"body/level/{name}", said, nearest(word.lower(), _LEVELS)))
            return None

    base, pin = level("base", body.base), level("pin", body.pin)
    if not given & {"base", "pin"}:
        faults.append(FieldFault("body/level", "expected base, pin or both"))
    if faults:
        said = "; ".join(f"{fault.pointer.partition('/')[2]}: {fault.message}" for fault in faults)
        hint = next((fault.did_you_mean for fault in faults if fault.did_you_mean), None)
        raise ApiError("invalid-body", where=said, did_you_mean=hint, faults=faults)
    return SetLevel(run, base, pin, "pin" in given and body.pin is None, body.revision)


async def _settle(before: RunView, view: RunView, client: Client, wait_s: float) -> RunView:
    """The newest view of the run, once a row shows what was asked for, or after `wait_s`. What came by `view` was collected
    before the trainer was told; where nothing changed since `before`, that is enough."""
    deadline, revision, asked = time.monotonic() + wait_s, view.run.revision, view
    if before.run.revision == revision and _holds(view):
        return view
    while not (_came_after(asked, view) and _holds(view)) and not client.ended and (left := deadline - time.monotonic()) > 0:
        event = await client.take(left)
        if isinstance(event, Event) and isinstance(event.payload, RunView) and event.payload.run.revision >= revision:
            view = event.payload  # an older one was on its way when this was asked
    return view


def _came_after(asked: RunView, view: RunView) -> bool:
    """Whether a row came that the trainer began knowing what was `asked`; several ranks begin together, some updates later."""
    if view.run.attempt != asked.run.attempt or asked.update_last is None:
        return view.update_last is not None
    return view.update_last is not None and view.update_last >= max(asked.update_last + 1, asked.level_from)


def _holds(view: RunView) -> bool:
    """Whether the newest row was collected as base and pin say, or above the base where an open escalation asks for it."""
    if view.run.pin is not None:
        return view.effective == view.run.pin
    return view.effective == view.run.base or (view.effective in view.raised and view.effective > view.run.base)


@router.patch(
    "/runs/{run}",
    response_model=models.RunSummary,
    status_code=202,
    operation_id="change_run",
    summary="Change the base level of a run, pin it or let go of the pin",
)
async def change_run(
    request: Request,
    run: RunName,
    body: RunBody,
    wait: Annotated[
        float, Query(ge=0, le=WAIT_MAX_S, allow_inf_nan=False, description="Seconds to wait until an update was collected so")
    ] = 0.0,
) -> Answer:
    """Holds from the trainer's next update on. A new attempt begins with its own base; a pin stays until it is let go."""
    context, before = find_run(request, run)
    wanted = read_body(run, body.level)
    client = context.hub.subscribe({"run"}, {run})
    try:
        view = await _settle(before, await submit(context, wanted, RunView), client, wait)
    finally:
        context.hub.unsubscribe(client)
    return Answer(run_summary(view).model_dump(), status_code=202)
