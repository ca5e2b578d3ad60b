"""The HTTP application: routes, the middlewares around them, and the error handlers behind them."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api import (
    anomalies,
    charts,
    commands,
    daemon,
    detectors,
    document,
    escalations,
    exports,
    health,
    keys,
    layers,
    level,
    metrics,
    notify,
    playbook,
    replay,
    runs,
    series,
    silences,
    snapshot,
    stream,
    timeline,
    tokens,
    web,
)
from gradwatch_daemon.api.access import Sessions
from gradwatch_daemon.api.access_models import TokenBody
from gradwatch_daemon.api.attention_models import AnomalyBody, SilenceBody
from gradwatch_daemon.api.auth import Door
from gradwatch_daemon.api.context import ApiContext
from gradwatch_daemon.api.control_models import CommandBody, EscalationBody
from gradwatch_daemon.api.level import LevelBody, RunBody
from gradwatch_daemon.api.notify_models import TestBody
from gradwatch_daemon.api.numbers import Answer
from gradwatch_daemon.api.parameters import refuse_unknown_parameters
from gradwatch_daemon.api.problems import ApiError, internal, on_http, on_invalid, on_refusal, problem
from gradwatch_daemon.api.replay_models import ReplayBody

PREFIX = "/api/v1"
BODY_BYTES_MAX = 64 * 1024
"""The largest body a route takes is an escalation with a reason of 500 characters."""

_log = logging.getLogger("gradwatch.api")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Shield:
    """Outermost ASGI middleware: security headers on every response, and 500 without a traceback for a bug of ours.

    It stands outside the error middleware of the framework, whose own 500 would carry none of the headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and answer for what went wrong inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            answer = internal(scope["path"], error)
            if not started:
                await answer(scope, receive, send_with_headers)


class BodyLimit:
    """ASGI middleware: 413 for a body above `BODY_BYTES_MAX`, announced or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what comes in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        # Its own length first: int() of thousands of digits is an error of its own.
        if not announced.isdigit() or len(announced) > 9 or int(announced) > BODY_BYTES_MAX:
            await problem(_too_large(announced), scope["path"])(scope, receive, send)
            return
        taken = 0

        async def receive_counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > BODY_BYTES_MAX:
                raise _too_large(f"more than {BODY_BYTES_MAX}")
            return message

        await self._app(scope, receive_counted, send)


def _audited(context: ApiContext) -> Callable[[dict[str, Any]], None]:
    """Writes to the audit; a disk that takes no more is shouted into the log, for the change itself is done."""

    def note(entry: dict[str, Any]) -> None:
        try:
            context.audit.write(entry)
        except OSError as error:
            _log.error("a change was not written to the audit (%s): %s", error, entry)

    return note


def _too_large(got: str) -> ApiError:
    return ApiError("body-too-large", where="body", expected=f"at most {BODY_BYTES_MAX} bytes", got=got[:40])


def create_api(context: ApiContext) -> FastAPI:
    """The application over `context`. It starts nothing and owns nothing; whoever runs it closes `context.hub` to stop."""
    app = FastAPI(
        title="gradwatch",
        version=context.version,
        summary="Telemetry, anomalies and escalation of deep-RL training runs",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=Answer,
        dependencies=[Depends(refuse_unknown_parameters)],
        exception_handlers={
            GradwatchError: on_refusal,
            RequestValidationError: on_invalid,
            HTTPException: on_http,
        },
    )
    app.state.context = context
    app.state.sessions = Sessions(context.book)
    app.state.trying = asyncio.Lock()
    app.state.web = web.shipped_files()
    bodies = (EscalationBody, CommandBody, RunBody, LevelBody, TokenBody, ReplayBody, AnomalyBody, SilenceBody, TestBody)
    app.state.body_fields = tuple(field.alias or name for body in bodies for name, field in body.model_fields.items())
    api = APIRouter(prefix=PREFIX)
    for room in (
        runs,
        series,
        charts,
        layers,
        snapshot,
        timeline,
        anomalies,
        silences,
        notify,
        level,
        escalations,
        commands,
        detectors,
        daemon,
        replay,
        exports,
        stream,
        tokens,
        keys,
    ):
        api.include_router(room.router)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(playbook.router)
    app.include_router(tokens.outside)
    app.include_router(web.router)
    app.include_router(api)
    # Added last is outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(
        Door, book=context.book, sessions=app.state.sessions, audit=_audited(context), allowed_hosts=context.allowed_hosts
    )
    app.add_middleware(Shield)
    document.install(app)
    return app
