"""Errors as problem documents (RFC 9457), each with a code of the one error table."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest
from gradwatch_daemon.api.numbers import Answer

TYPE_PREFIX = "urn:gradwatch:problem:"
_log = logging.getLogger("gradwatch.api")


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One wrong field: its place (`query/limit`, `body/updates`), what is wrong, and the nearest known word."""

    pointer: str
    message: str
    did_you_mean: str | None = None


class ApiError(GradwatchError):
    """A refusal of the API itself: adds the nearest known word, the fields that are wrong, and response headers."""

    def __init__(
        self,
        slug: str,
        *,
        where: str = "",
        expected: str = "",
        got: str = "",
        next_step: str = "",
        did_you_mean: str | None = None,
        faults: Sequence[FieldFault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(slug, where=where, expected=expected, got=got, next_step=next_step)
        self.did_you_mean = did_you_mean
        self.faults = tuple(faults)
        self.headers = dict(headers or {})


class ProblemAnswer(Answer):
    """A JSON response with the media type of problem documents."""

    media_type = "application/problem+json"


def refuse_word(slug: str, where: str, word: str, known: Iterable[str], expected: str = "") -> ApiError:
    """A refusal of `word` that names the nearest of `known`; with `expected` empty the known words are listed."""
    listed = sorted(known)
    hint = nearest(word, listed) or _nearest_part(word, listed)
    fault = FieldFault(where, f"{word[:80]!r} is not known", hint)
    return ApiError(
        slug,
        where=where.rpartition("/")[2],
        expected=expected or (f"one of {', '.join(listed[:20])}" if listed else "none"),
        got=repr(word[:80]),
        next_step=f"Did you mean {hint}?" if hint else "",
        did_you_mean=hint,
        faults=(fault,) if slug.startswith("invalid-") else (),
    )


def _nearest_part(word: str, known: list[str]) -> str | None:
    """The shortest dotted name with a part like `word`: who asks for `entropy` means `policy.entropy`."""
    parts = {part: name for name in sorted(known, key=len, reverse=True) for part in name.split(".")[1:]}
    part = nearest(word, parts)
    return parts[part] if part is not None else None


def problem(error: GradwatchError, instance: str) -> ProblemAnswer:
    """The response for one refusal; `instance` is the path of the request."""
    own = error if isinstance(error, ApiError) else None
    document = {
        "type": TYPE_PREFIX + error.code.slug,
        "title": error.code.title,
        "status": error.code.http,
        "detail": error.detail or error.code.title,
        "instance": instance,
        "code": error.code.slug,
        "hint": error.next_step,
        "did_you_mean": own.did_you_mean if own else None,
        "errors": [asdict(fault) for fault in own.faults] if own else [],
    }
    return ProblemAnswer(document, status_code=error.code.http, headers=own.headers if own else None)


def invalid(error: RequestValidationError, body_fields: Iterable[str] = ()) -> ApiError:
    """Our refusal for what FastAPI found wrong: `invalid-body` when it was in the body, else `invalid-parameter`.

    `body_fields` are the fields the body may have; an unknown one then names the nearest.
    """
    faults = [_fault(item, tuple(body_fields)) for item in error.errors()]
    slug = "invalid-body" if any(fault.pointer.startswith("body") for fault in faults) else "invalid-parameter"
    said = "; ".join(f"{fault.pointer.rpartition('/')[2]}: {fault.message}" for fault in faults)
    hint = next((fault.did_you_mean for fault in faults if fault.did_you_mean), None)
    return ApiError(slug, where=said, did_you_mean=hint, faults=faults)


def _fault(item: Mapping[str, Any], known: tuple[str, ...]) -> FieldFault:
    parts = [str(part) for part in item["loc"]]
    if item["type"] == "json_invalid":
        return FieldFault("body", f"is not JSON: {item['ctx']['error']} at character {parts[-1]}")
    pointer = "/".join(parts)
    if item["type"] == "extra_forbidden":
        hint = nearest(parts[-1], known)
        return FieldFault(pointer, "this field is not known" + (f", did you mean {hint}?" if hint else ""), hint)
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] != "missing":
        message += f", got {repr(item.get('input'))[:80]}"
    return FieldFault(pointer, message)


def body_fault(pointer: str, error: GradwatchError) -> GradwatchError:
    """The refusal of a value in the body for what an inner part says of it; any other refusal as it is."""
    if error.code.slug != "invalid-argument":
        return error
    return ApiError("invalid-body", where=error.detail, next_step=error.next_step, faults=[FieldFault(pointer, error.detail)])


async def on_refusal(request: Request, error: Exception) -> ProblemAnswer:
    """Exception handler for every GradwatchError."""
    if not isinstance(error, GradwatchError):
        return internal(request.url.path, error)
    return problem(error, request.url.path)


async def on_invalid(request: Request, error: Exception) -> ProblemAnswer:
    """Exception handler for what FastAPI refuses before a handler runs."""
    if not isinstance(error, RequestValidationError):
        return internal(request.url.path, error)
    body_fields: tuple[str, ...] = getattr(request.app.state, "body_fields", ())
    return problem(invalid(error, body_fields), request.url.path)


async def on_http(request: Request, error: Exception) -> ProblemAnswer:
    """Exception handler for what the router refuses: unknown address, wrong method, unreadable body."""
    if not isinstance(error, HTTPException):
        return internal(request.url.path, error)
    # FastAPI wraps whatever reading the body raised, our own refusal of its size too.
    if isinstance(error.__cause__, GradwatchError):
        return problem(error.__cause__, request.url.path)
    slugs = {404: "route-not-found", 405: "method-not-allowed", 413: "body-too-large", 503: "overloaded"}
    slug = slugs.get(error.status_code, "invalid-body" if error.status_code < 500 else "internal")
    faults = [FieldFault("body", "is not JSON in UTF-8")] if slug == "invalid-body" else []
    refusal = ApiError(slug, where=f"{request.method} {request.url.path}", faults=faults, headers=error.headers)
    return problem(refusal, request.url.path)


def internal(instance: str, error: BaseException) -> ProblemAnswer:
    """500 for a bug of ours: the traceback goes to the log, never into the body."""
    _log.error("unexpected error at %s", instance, exc_info=error)
    return problem(GradwatchError("internal"), instance)
