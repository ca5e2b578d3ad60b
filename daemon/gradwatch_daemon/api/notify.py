"""Notifications: who is told, what they were told, and a way to try it."""

import json
from dataclasses import asdict
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query, Request

from gradwatch_daemon.api import notify_models as models
from gradwatch_daemon.api.context import context_of
from gradwatch_daemon.api.cursors import Key, page
from gradwatch_daemon.api.numbers import Answer, time_text
from gradwatch_daemon.api.parameters import LIMIT, Cursor, Limit, check_word
from gradwatch_daemon.api.problems import ApiError
from gradwatch_daemon.records.notices import Delivery

STATES = ("pending", "delivered", "failed", "dropped", "muted")

router = APIRouter(tags=["notify"])


@router.get("/notify", response_model=models.ChannelList, operation_id="list_channels", summary="Who is told")
async def list_channels(request: Request) -> Answer:
    """The channels of the configuration, with how their deliveries stand."""
    context = context_of(request)
    counts = await anyio.to_thread.run_sync(context.reader.delivery_counts)
    items = [
        models.ChannelItem.model_validate(
            {**asdict(channel), "deliveries": {state: counts.get((channel.name, state), 0) for state in STATES}}
        )
        for channel in context.notifier.channels
    ]
    return Answer(models.ChannelList(items=items, next=None).model_dump())


@router.post("/notify/test", response_model=models.TriedList, operation_id="test_notify", summary="Send a test notification")
async def test_notify(request: Request, body: models.TestBody) -> Answer:
    """Sends it now, past what is pending, and says what came back. It is not in the log. One at a time: a receiver that hangs
    holds a thread of those that all requests share."""
    trying = request.app.state.trying
    if trying.locked():
        raise ApiError("overloaded", where="notify/test", expected="one test at a time", got="another under way")
    async with trying:
        tried = await anyio.to_thread.run_sync(context_of(request).notifier.test, body.channel)
    items = [models.TriedItem.model_validate(asdict(one)) for one in tried]
    return Answer(models.TriedList(items=items, next=None).model_dump())


@router.get("/deliveries", response_model=models.DeliveryList, operation_id="list_deliveries", summary="What people were told")
async def list_deliveries(
    request: Request,
    channel: Annotated[str | None, Query(description="Only of this channel")] = None,
    state: Annotated[str | None, Query(description=f"One of {', '.join(STATES)}")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Answer:
    """Newest first, with what the receiver said; of channels that are no longer configured too."""
    check_word("state", state, STATES)
    log = await anyio.to_thread.run_sync(context_of(request).reader.deliveries)
    wanted = (d for d in log if channel in (None, d.channel) and state in (None, d.state))
    shown, following = page(wanted, _key, limit, cursor)
    return Answer(models.DeliveryList(items=[_item(delivery) for delivery in shown], next=following).model_dump())


def _key(delivery: Delivery) -> Key:
    return delivery.made_ns, delivery.id


def _item(delivery: Delivery) -> models.DeliveryItem:
    return models.DeliveryItem.model_validate(
        {
            "id": delivery.id,
            "channel": delivery.channel,
            "subject": delivery.subject,
            "event": delivery.event,
            "severity": delivery.severity,
            "run": delivery.run,
            "state": delivery.state,
            "attempts": delivery.attempts,
            "made_at": time_text(delivery.made_ns),
            "changed_at": time_text(delivery.changed_ns),
            "answer": delivery.answer,
            "silenced": delivery.silence or None,
            "body": json.loads(delivery.body),
        }
    )
