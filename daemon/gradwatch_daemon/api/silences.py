"""Silences: anomalies that are expected for a while are not delivered, and stay in the record."""

import time
from typing import Annotated
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request

from gradwatch_contracts.names import ID, nearest
from gradwatch_daemon.api import attention_models as models
from gradwatch_daemon.api.context import ApiContext, context_of
from gradwatch_daemon.api.cursors import Key, page
from gradwatch_daemon.api.numbers import Answer, time_text
from gradwatch_daemon.api.parameters import LIMIT, Cursor, Limit, check_word
from gradwatch_daemon.api.problems import ApiError, FieldFault
from gradwatch_daemon.api.submission import submit
from gradwatch_daemon.api.tokens import principal_of
from gradwatch_daemon.records.attention import CreateSilence, EndSilence, Silence
from gradwatch_daemon.records.notices import RUN_DOWN

STATES = ("active", "expired", "ended")

router = APIRouter(tags=["silences"])


def silence_item(silence: Silence, now_ns: int) -> models.SilenceItem:
    """One silence, as GET and the stream show it."""
    return models.SilenceItem.model_validate(
        {
            "id": silence.id,
            "run": silence.run,
            "kind": silence.kind,
            "subject": silence.subject,
            "reason": silence.reason,
            "author": silence.author,
            "created_at": time_text(silence.created_ns),
            "expires_at": time_text(silence.expires_ns),
            "state": silence.state(now_ns),
            "muted": silence.muted,
        }
    )


def check_body(body: models.SilenceBody, context: ApiContext) -> None:
    """A mistyped word would mute nothing, and nobody would notice before the night.

    Raises:
        ApiError: `invalid-body`, with every field that is wrong and the nearest known word.
    """
    faults: list[FieldFault] = []
    known = {"run": list(context.snapshots()), "kind": [*(info.kind for info in context.catalogue), RUN_DOWN]}
    for name, word in (("run", body.run), ("kind", body.kind)):
        if word is not None and word not in known[name]:
            hint = nearest(word, known[name])
            tail = f", did you mean {hint}?" if hint else ""
            faults.append(FieldFault(f"body/{name}", f"expected a known {name}, got {word[:80]!r}{tail}", hint))
    if body.id is not None and not ID.fullmatch(body.id):
        faults.append(FieldFault("body/id", f"expected {ID.pattern}, got {body.id[:80]!r}"))
    if faults:
        said = "; ".join(f"{fault.pointer.partition('/')[2]}: {fault.message}" for fault in faults)
        hint = next((fault.did_you_mean for fault in faults if fault.did_you_mean), None)
        raise ApiError("invalid-body", where=said, did_you_mean=hint, faults=faults)


@router.post(
    "/silences",
    response_model=models.SilenceItem,
    status_code=201,
    operation_id="create_silence",
    summary="Deliver nothing of some anomalies for a while",
)
async def create_silence(request: Request, body: models.SilenceBody) -> Answer:
    """Holds from now, also for what is open already. The same `id` with the same content again is the same silence."""
    context = context_of(request)
    check_body(body, context)
    author, lifetime_ns = principal_of(request).name, int(body.lifetime_s * 1e9)
    id_ = body.id or context.new_id()
    wanted = CreateSilence(id_, body.run, body.kind, body.subject, body.reason, author, lifetime_ns)
    silence = await submit(context, wanted, Silence)
    place = f"/api/v1/silences/{quote(silence.id, safe='')}"
    return Answer(silence_item(silence, time.time_ns()).model_dump(), status_code=201, headers={"Location": place})


@router.get("/silences", response_model=models.SilenceList, operation_id="list_silences", summary="Silences, newest first")
async def list_silences(
    request: Request,
    state: Annotated[str | None, Query(description=f"One of {', '.join(STATES)}")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Answer:
    """Active ones and those that are over: who silenced what, why, and how much it muted."""
    check_word("state", state, STATES)
    known, now_ns = await anyio.to_thread.run_sync(context_of(request).reader.silences), time.time_ns()
    shown, following = page((s for s in known if state in (None, s.state(now_ns))), _key, limit, cursor)
    return Answer(models.SilenceList(items=[silence_item(s, now_ns) for s in shown], next=following).model_dump())


def _key(silence: Silence) -> Key:
    return silence.created_ns, silence.id


@router.get("/silences/{id}", response_model=models.SilenceItem, operation_id="get_silence", summary="One silence")
async def get_silence(request: Request, id_: Annotated[str, Path(alias="id", description="Id of the silence")]) -> Answer:
    """One silence, active or over."""
    for silence in await anyio.to_thread.run_sync(context_of(request).reader.silences):
        if silence.id == id_:
            return Answer(silence_item(silence, time.time_ns()).model_dump())
    raise ApiError("silence-not-found", where="id", expected="the id of a silence", got=repr(id_[:80]))


@router.delete("/silences/{id}", response_model=models.SilenceItem, operation_id="end_silence", summary="End a silence early")
async def end_silence(request: Request, id_: Annotated[str, Path(alias="id", description="Id of the silence")]) -> Answer:
    """What still fires is delivered again. Ending one that is over changes nothing; it stays in the list."""
    silence = await submit(context_of(request), EndSilence(id_), Silence)
    return Answer(silence_item(silence, time.time_ns()).model_dump())
