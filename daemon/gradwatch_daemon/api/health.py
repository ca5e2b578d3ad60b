"""Probes and version: outside /api/v1."""

from fastapi import APIRouter, Request

from gradwatch_daemon.api import service_models as models
from gradwatch_daemon.api.context import context_of
from gradwatch_daemon.api.numbers import Answer
from gradwatch_daemon.api.problems import ApiError, FieldFault

router = APIRouter(tags=["health"])


@router.get("/livez", response_model=models.LiveAnswer, operation_id="livez", summary="Whether the process answers")
async def livez() -> Answer:
    """200 as long as the event loop turns. No token, any Host."""
    return Answer(models.LiveAnswer(status="alive").model_dump())


@router.get("/readyz", response_model=models.ReadyAnswer, operation_id="readyz", summary="Whether it can do its work")
async def readyz(request: Request) -> Answer:
    """200 when data can come in and be stored; else 503 with each reason. No token, any Host."""
    reasons = list(context_of(request).ready())
    if reasons:
        faults = [FieldFault("daemon", reason) for reason in reasons]
        raise ApiError("not-ready", where="; ".join(reasons), faults=faults, headers={"Retry-After": "1"})
    return Answer(models.ReadyAnswer(status="ready").model_dump())


@router.get("/version", response_model=models.VersionAnswer, operation_id="version", summary="What runs here")
async def version(request: Request) -> Answer:
    """Version of gradwatch and of this API."""
    answer = models.VersionAnswer(name="gradwatch", version=context_of(request).version, api="v1")
    return Answer(answer.model_dump())
