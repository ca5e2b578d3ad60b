"""Escalations: raise a run's telemetry level for a number of updates, and see what became of it."""

import time
from typing import Annotated
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request

from gradwatch_contracts.control import ControlState, Level, parse_level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.limits import ESCALATION_UPDATES_MAX
from gradwatch_contracts.names import ID, nearest
from gradwatch_daemon.api import control_models, models
from gradwatch_daemon.api.context import ApiContext
from gradwatch_daemon.api.cursors import Key, page
from gradwatch_daemon.api.events import Event
from gradwatch_daemon.api.hub import Client
from gradwatch_daemon.api.numbers import Answer, time_text
from gradwatch_daemon.api.parameters import LIMIT, Cursor, Limit, RunName, check_word, find_run
from gradwatch_daemon.api.problems import ApiError, FieldFault
from gradwatch_daemon.api.runs import level_name, rank_items, run_summary
from gradwatch_daemon.api.sentences import escalation_sentence
from gradwatch_daemon.api.submission import submit
from gradwatch_daemon.records import Escalation, RunView
from gradwatch_daemon.records.commands import OPERATOR, Calm, CancelEscalation, RequestEscalation

WAIT_MAX_S = 30.0
_LEVELS = ("minimal", "normal", "debug")
_UNDECIDED = (ControlState.REQUESTED, ControlState.DELIVERED)

Wait = Annotated[
    float,
    Query(ge=0, le=WAIT_MAX_S, allow_inf_nan=False, description="Seconds to wait until it is applied, ended or refused"),
]
EscalationId = Annotated[str, Path(alias="id", description="Id of the escalation")]

router = APIRouter(tags=["escalations"])


def escalation_item(escalation: Escalation) -> control_models.EscalationItem:
    """One escalation, as GET and the stream show it."""
    return control_models.EscalationItem.model_validate(
        {
            "id": escalation.id,
            "run": escalation.run,
            "level": level_name(escalation.level),
            "updates": escalation.updates,
            "origin": escalation.origin,
            "reason": escalation.reason,
            "state": escalation.state.value,
            "requested_at": time_text(escalation.requested_ns),
            "update_applied": escalation.update_applied,
            "update_ended": escalation.update_ended,
            "ended_why": escalation.ended_why,
            "expires_at": time_text(escalation.expires_ns) if escalation.expires_ns else None,
            "ranks": rank_items(escalation.ranks),
            "sentence": escalation_sentence(escalation),
        }
    )


def read_body(body: control_models.EscalationBody) -> tuple[Level, int]:
    """Level and updates of a body.

    Raises:
        ApiError: `invalid-body`, with every field that is wrong.
    """
    faults: list[FieldFault] = []
    level = Level.DEBUG
    try:
        level = parse_level(body.level, least=Level.MINIMAL)
    except GradwatchError as error:
        why = ": an escalation only raises" if body.level.upper() == Level.OFF.name else ""
        hint = None if why else nearest(body.level.lower(), _LEVELS)
        faults.append(FieldFault("body/level", f"expected {error.expected}, got {error.got}{why}", hint))
    if not 1 <= body.updates <= ESCALATION_UPDATES_MAX:
        faults.append(FieldFault("body/updates", f"expected 1 to {ESCALATION_UPDATES_MAX}, got {body.updates}"))
    if body.id is not None and not ID.fullmatch(body.id):
        faults.append(FieldFault("body/id", f"expected {ID.pattern}, got {body.id[:80]!r}"))
    if faults:
        said = "; ".join(f"{fault.pointer.partition('/')[2]}: {fault.message}" for fault in faults)
        hint = next((fault.did_you_mean for fault in faults if fault.did_you_mean), None)
        raise ApiError("invalid-body", where=said, did_you_mean=hint, faults=faults)
    return level, body.updates


async def _origin(context: ApiContext, run: str, id_: str) -> str:
    """The origin of what is asked in the name of an anomaly of this run."""
    anomaly = await anyio.to_thread.run_sync(context.reader.anomaly, id_)
    if anomaly is None or anomaly.run != run:
        raise ApiError("anomaly-not-found", where="body/anomaly", expected=f"the id of an anomaly of {run}", got=repr(id_[:80]))
    return f"anomaly:{anomaly.id}"


async def _find(context: ApiContext, run: str, id_: str) -> Escalation:
    escalation = await anyio.to_thread.run_sync(context.reader.escalation, run, id_)
    if escalation is None:
        raise ApiError("escalation-not-found", where="id", expected=f"the id of an escalation of {run}", got=repr(id_[:80]))
    return escalation


async def _settle(escalation: Escalation, client: Client, wait_s: float) -> Escalation:
    """The newest state of an escalation, once it is decided or after `wait_s`; `client` was subscribed before it was read."""
    deadline = time.monotonic() + wait_s
    while escalation.state in _UNDECIDED and not client.ended and (left := deadline - time.monotonic()) > 0:
        event = await client.take(left)
        if isinstance(event, Event) and isinstance(event.payload, Escalation) and event.payload.id == escalation.id:
            escalation = event.payload
    return escalation


@router.post(
    "/runs/{run}/escalations",
    response_model=control_models.EscalationItem,
    status_code=202,
    operation_id="create_escalation",
    summary="Raise the level for a while",
)
async def create_escalation(request: Request, run: RunName, body: control_models.EscalationBody, wait: Wait = 0.0) -> Answer:
    """Ask for a level for a number of updates. The same `id` with the same content again is the same escalation."""
    context, _ = find_run(request, run)
    level, updates = read_body(body)
    origin = OPERATOR if body.anomaly is None else await _origin(context, run, body.anomaly)
    wanted = RequestEscalation(run, body.id or context.new_id(), level, updates, body.reason, body.expires_s, origin)
    client = context.hub.subscribe({"escalation"}, {run})
    try:
        escalation = await _settle(await submit(context, wanted, Escalation), client, wait)
    finally:
        context.hub.unsubscribe(client)
    place = f"/api/v1/runs/{quote(run, safe='')}/escalations/{quote(escalation.id, safe='')}"
    return Answer(escalation_item(escalation).model_dump(), status_code=202, headers={"Location": place})


@router.get(
    "/runs/{run}/escalations",
    response_model=control_models.EscalationList,
    operation_id="list_escalations",
    summary="Escalations of a run, newest first",
)
async def list_escalations(
    request: Request,
    *,
    run: RunName,
    state: Annotated[str | None, Query(description=f"One of {', '.join(ControlState)}")] = None,
    origin: Annotated[str | None, Query(description="Only of this origin: operator, anomaly, or anomaly:ID")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Answer:
    """By operators and by rules, in one list."""
    context, _ = find_run(request, run)
    check_word("state", state, [one.value for one in ControlState])
    found = await anyio.to_thread.run_sync(context.reader.escalations, run)
    known = [
        escalation
        for escalation in found
        if state in (None, escalation.state.value) and origin in (None, escalation.origin, escalation.origin.split(":")[0])
    ]
    shown, following = page(known, _key, limit, cursor)
    items = [escalation_item(escalation) for escalation in shown]
    return Answer(control_models.EscalationList(items=items, next=following).model_dump())


def _key(escalation: Escalation) -> Key:
    return escalation.requested_ns, escalation.id


@router.get(
    "/runs/{run}/escalations/{id}",
    response_model=control_models.EscalationItem,
    operation_id="get_escalation",
    summary="One escalation",
)
async def get_escalation(request: Request, run: RunName, id_: EscalationId, wait: Wait = 0.0) -> Answer:
    """What became of it; with `wait`, once that is decided."""
    context, _ = find_run(request, run)
    client = context.hub.subscribe({"escalation"}, {run})
    try:
        escalation = await _settle(await _find(context, run, id_), client, wait)
    finally:
        context.hub.unsubscribe(client)
    return Answer(escalation_item(escalation).model_dump())


@router.delete(
    "/runs/{run}/escalations",
    response_model=models.RunSummary,
    status_code=202,
    operation_id="calm_run",
    summary="End every escalation of a run and let go of its pin",
)
async def calm_run(request: Request, run: RunName) -> Answer:
    """Back to the base; the trainer ends them at its next update."""
    context, _ = find_run(request, run)
    view = await submit(context, Calm(run), RunView)
    return Answer(run_summary(view).model_dump(), status_code=202)


@router.delete(
    "/runs/{run}/escalations/{id}",
    response_model=control_models.EscalationItem,
    status_code=202,
    operation_id="cancel_escalation",
    summary="End an escalation early",
)
async def cancel_escalation(request: Request, run: RunName, id_: EscalationId) -> Answer:
    """Ask for its end; the trainer ends it at its next update. Ending an ended one changes nothing."""
    context, _ = find_run(request, run)
    escalation = await submit(context, CancelEscalation(run, id_), Escalation)
    return Answer(escalation_item(escalation).model_dump(), status_code=202)
