"""Query parameters: an unknown one is refused with the nearest known name, because a typo must not widen an answer."""

import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin

from fastapi import Path, Query, Request
from fastapi.params import Query as QueryParam

from gradwatch_contracts import limits
from gradwatch_contracts.names import RUN, nearest
from gradwatch_daemon.api.context import ApiContext, context_of
from gradwatch_daemon.api.cursors import LIMIT_DEFAULT, LIMIT_MAX
from gradwatch_daemon.api.problems import ApiError, FieldFault, refuse_word
from gradwatch_daemon.records import RunView

RunName = Annotated[str, Path(description="Name of the run", examples=["ant-ppo"])]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Items of one answer")]
Cursor = Annotated[str | None, Query(description="`next` of the answer before")]
UPDATE_MAX = limits.UPDATE_MAX
LIMIT = LIMIT_DEFAULT


@lru_cache(maxsize=256)
def query_names(endpoint: Callable[..., Any]) -> tuple[str, ...]:
    """The query parameters an endpoint declares with `Annotated[…, Query(…)]`, by the name they have in the address."""
    names = []
    for parameter in inspect.signature(endpoint).parameters.values():
        marks = get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is Annotated else ()
        names += [mark.alias or parameter.name for mark in marks if isinstance(mark, QueryParam)]
    return tuple(names)


async def refuse_unknown_parameters(request: Request) -> None:
    """Dependency of every route.

    Raises:
        ApiError: `invalid-parameter` for a parameter that the route does not take, or that is given twice.
    """
    known = query_names(request.scope["endpoint"])
    given = [key for key, _ in request.query_params.multi_items()]
    faults = []
    for key in dict.fromkeys(given):
        if key not in known:
            hint = nearest(key, known)
            faults.append(FieldFault(f"query/{key[:80]}", "is not known" + (f", did you mean {hint}?" if hint else ""), hint))
        elif given.count(key) > 1:
            faults.append(FieldFault(f"query/{key}", "is given more than once"))
    if faults:
        said = "; ".join(f"{fault.pointer.partition('/')[2]} {fault.message}" for fault in faults)
        takes = f"Known here: {', '.join(known)}." if known else "This address takes no parameters."
        hint = next((fault.did_you_mean for fault in faults if fault.did_you_mean), None)
        raise ApiError("invalid-parameter", where=said, next_step=takes, did_you_mean=hint, faults=faults)


def find_run(request: Request, run: str, where: str = "run") -> tuple[ApiContext, RunView]:
    """The context and the newest view of a run.

    Raises:
        ApiError: `run-not-found`, naming the nearest run.
    """
    context = context_of(request)
    views = context.snapshots()
    if run not in views:
        raise refuse_word("run-not-found", where, run, views, expected="a run that this daemon knows")
    return context, views[run]


def check_word(where: str, word: str | None, known: Iterable[str]) -> None:
    """Refuse a parameter that is not one of the known words.

    Raises:
        ApiError: `invalid-parameter`, naming the nearest.
    """
    listed = tuple(known)
    if word is not None and word not in listed:
        raise refuse_word("invalid-parameter", f"query/{where}", word, listed)


def check_order(first: int | None, last: int | None) -> None:
    """Refuse `from` after `to`, which would answer nothing.

    Raises:
        ApiError: `invalid-parameter`.
    """
    if first is not None and last is not None and first > last:
        fault = FieldFault("query/from", "is after `to`")
        raise ApiError("invalid-parameter", where="from", expected=f"at most to={last}", got=str(first), faults=[fault])


def split_words(where: str, text: str | None, known: Iterable[str] | None = None) -> frozenset[str] | None:
    """A comma-separated parameter, None when not given. Words must be in `known`, or be run names where `known` is None.

    Raises:
        ApiError: `invalid-parameter`, naming the nearest.
    """
    if text is None:
        return None
    words = frozenset(word.strip() for word in text.split(","))
    for word in sorted(words):
        if known is not None:
            check_word(where, word, known)
        elif not RUN.fullmatch(word):
            raise refuse_word("invalid-parameter", f"query/{where}", word, (), expected="names of runs, with commas between")
    return words
