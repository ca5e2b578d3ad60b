"""Handing a request to the pipeline thread and waiting for the committed record."""

import asyncio
from typing import Any, TypeVar

from gradwatch_daemon.api.context import ApiContext
from gradwatch_daemon.api.problems import ApiError
from gradwatch_daemon.records.attention import AttentionRequest
from gradwatch_daemon.records.commands import ControlRequest

Record = TypeVar("Record")


async def submit(context: ApiContext, wanted: ControlRequest | AttentionRequest, kind: type[Record]) -> Record:
    """The committed record of a request; `kind` is what the pipeline answers such a request with.

    Shielded: a client that leaves must not cancel a future that the pipeline thread is about to complete.

    Raises:
        GradwatchError: what the pipeline refused with, or `overloaded` when it did not answer.
    """
    answer = asyncio.wrap_future(context.submit(wanted))
    try:
        record = await asyncio.wait_for(asyncio.shield(answer), context.submit_timeout_s)
    except asyncio.TimeoutError as error:
        answer.add_done_callback(_retrieve)
        raise ApiError(
            "overloaded",
            where="pipeline",
            expected=f"an answer within {context.submit_timeout_s:g} s",
            got="none yet; it may still be carried out",
            headers={"Retry-After": "1"},
        ) from error
    if not isinstance(record, kind):
        raise TypeError(f"the pipeline answered {type(wanted).__name__} with {type(record).__name__}")
    return record


def _retrieve(answer: "asyncio.Future[Any]") -> None:
    """Take the late outcome, so that the loop does not report it as forgotten."""
    if not answer.cancelled():
        answer.exception()
