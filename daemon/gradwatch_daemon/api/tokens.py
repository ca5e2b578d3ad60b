"""Tokens, browser sessions and the audit: who may ask, and who asked for what."""

import time
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request, Response

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api import access_models as models
from gradwatch_daemon.api.access import Principal, Scope, Token
from gradwatch_daemon.api.auth import CODES_PATH, SESSION_PATH, cookie_name, cookie_of
from gradwatch_daemon.api.context import context_of
from gradwatch_daemon.api.cursors import LIMIT_DEFAULT, LIMIT_MAX
from gradwatch_daemon.api.numbers import Answer, time_text
from gradwatch_daemon.api.problems import body_fault

router = APIRouter(tags=["access"])
outside = APIRouter(tags=["access"])
"""Routes that are not under /api/v1."""

TokenName = Annotated[str, Path(description="Name of the token", examples=["grafana"])]
EntryLimit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Entries of one answer")]


def token_item(token: Token) -> models.TokenItem:
    """A token as it is shown: everything but the secret, which nobody has."""
    return models.TokenItem.model_validate(
        {
            "id": token.id,
            "name": token.name,
            "scope": token.scope.word,
            "created_at": time_text(token.created_ns),
            "expires_at": None if token.expires_ns is None else time_text(token.expires_ns),
        }
    )


def principal_of(request: Request) -> Principal:
    """Who asks, as the door found."""
    principal = request.scope["gradwatch.principal"]
    if not isinstance(principal, Principal):
        raise TypeError("the door let somebody in without a name")
    return principal


@router.get("/tokens", response_model=models.TokenList, operation_id="list_tokens", summary="Tokens made for others")
async def list_tokens(request: Request) -> Answer:
    """Oldest first; the owner's own token, which lies in a file, is not among them."""
    items = [token_item(token) for token in context_of(request).book.tokens]
    return Answer(models.TokenList(items=items, next=None).model_dump())


@router.post(
    "/tokens", response_model=models.TokenMade, status_code=201, operation_id="create_token", summary="Make a token for others"
)
async def create_token(request: Request, body: models.TokenBody) -> Answer:
    """The answer holds the token, this once; what is kept is its hash."""
    scopes = {scope.word: scope for scope in Scope}
    try:
        token, secret = context_of(request).book.add(body.name, scopes[body.scope], body.lifetime_s, time.time_ns())
    except GradwatchError as error:
        raise body_fault("body/name", error) from error
    made = models.TokenMade(**token_item(token).model_dump(), token=secret)
    return Answer(made.model_dump(), status_code=201)


@router.delete("/tokens/{name}", response_model=models.TokenItem, operation_id="revoke_token", summary="Take a token back")
async def revoke_token(request: Request, name: TokenName) -> Answer:
    """It is refused from the next request on, and so is every browser session that was opened with it; their streams end."""
    context = context_of(request)
    revoked = context.book.revoke(name)
    context.hub.end_over(time.time_ns())
    return Answer(token_item(revoked).model_dump())


@router.get("/audit", response_model=models.AuditList, operation_id="list_audit", summary="Who changed what, newest first")
async def list_audit(request: Request, limit: EntryLimit = LIMIT_DEFAULT) -> Answer:
    """Every request that would change something, refused ones too. Older entries are in audit.jsonl of the data directory."""
    entries = await anyio.to_thread.run_sync(context_of(request).audit.newest, limit)
    items = [models.AuditItem.model_validate(entry) for entry in entries]
    return Answer(models.AuditList(items=items, next=None).model_dump(by_alias=True))


@outside.post(SESSION_PATH, status_code=204, operation_id="open_session", summary="Change a token for a browser's cookie")
async def open_session(request: Request) -> Response:
    """Asked with `Authorization: Bearer TOKEN`, or a one-time code in its place; not with a cookie, which would never end. The
    cookie allows what the token allows, for 12 hours at most, and ends with it."""
    principal, host, now_ns = principal_of(request), request.headers["host"], time.time_ns()
    sessions = request.app.state.sessions
    secret = sessions.open(principal, now_ns)
    left_s = ((sessions.until(secret) or now_ns) - now_ns) // 1_000_000_000
    answer = Response(status_code=204)
    answer.set_cookie(
        cookie_name(host), secret, max_age=left_s, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return answer


@outside.delete(SESSION_PATH, status_code=204, operation_id="close_session", summary="Sign the browser out")
async def close_session(request: Request) -> Response:
    """Forgets the cookie here and in the browser; its streams end."""
    name = cookie_name(request.headers["host"])
    request.app.state.sessions.close(cookie_of(request.headers.get("cookie", ""), name))
    context_of(request).hub.end_over(time.time_ns())
    answer = Response(status_code=204)
    answer.delete_cookie(name, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


@outside.get(SESSION_PATH, response_model=models.SessionView, operation_id="get_session", summary="Who asks")
async def get_session(request: Request) -> Answer:
    """Whose token or cookie this is asked with, and what it allows."""
    principal, headers = principal_of(request), request.headers
    until_ns = request.app.state.sessions.until(cookie_of(headers.get("cookie", ""), cookie_name(headers["host"])))
    until = None if until_ns is None or "authorization" in headers else time_text(until_ns)
    return Answer(
        models.SessionView.model_validate(
            {"name": principal.name, "scope": principal.scope.word, "expires_at": until}
        ).model_dump()
    )


@outside.post(
    CODES_PATH,
    response_model=models.SessionCode,
    status_code=201,
    operation_id="create_code",
    summary="A code that opens one session",
)
async def create_code(request: Request) -> Answer:
    """For an address that opens the dashboard: it works once, within a quarter of an hour, and allows what this token does.
    Asked with a token, not with a cookie."""
    code, until_ns = request.app.state.sessions.invite(principal_of(request), time.time_ns())
    made = models.SessionCode(code=code, expires_at=time_text(until_ns), public_url=context_of(request).public_url)
    return Answer(made.model_dump(), status_code=201)
