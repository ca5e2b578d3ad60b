"""Files of what is stored, for people and programs elsewhere: what `gradwatch export` writes, over HTTP."""

import json
from typing import Annotated, BinaryIO

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request

from gradwatch_daemon.api.context import ApiContext, context_of
from gradwatch_daemon.api.coverage import HEADER, HEADERS, header
from gradwatch_daemon.api.files import FileAnswer
from gradwatch_daemon.api.parameters import UPDATE_MAX, RunName, check_order, check_word, find_run
from gradwatch_daemon.api.problems import ApiError
from gradwatch_daemon.records.exported import EXPORT_FORMATS, Exported, ExportOrder

ABOUT = "gradwatch-export"
"""Header with what is in the file, as JSON: rows, run, anomaly, rules_hash, notes, coverage."""

Format = Annotated[str, Query(alias="format", description=f"{', '.join(EXPORT_FORMATS[:-1])} or {EXPORT_FORMATS[-1]}")]
First = Annotated[int | None, Query(alias="from", ge=0, le=UPDATE_MAX, description="First update of tables and plots")]
Last = Annotated[int | None, Query(alias="to", ge=0, le=UPDATE_MAX, description="Last update of tables and plots")]
AnomalyId = Annotated[str, Path(alias="id", description="Id of the anomaly")]

_FILE = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            ABOUT: {
                "description": "What is in it, as JSON: format, bytes, rows, run, anomaly, rules_hash, notes, coverage",
                "schema": {"type": "string"},
            },
            **HEADERS,
        },
    }
}

router = APIRouter(tags=["export"])


@router.get(
    "/runs/{run}/export",
    response_class=FileAnswer,
    status_code=200,
    operation_id="export_run",
    summary="A run as a file",
    responses=_FILE,  # type: ignore[arg-type]
)
async def export_run(
    request: Request,
    *,
    run: RunName,
    format_: Format = "html",
    first: First = None,
    last: Last = None,
) -> FileAnswer:
    """A page for people, a bundle that replays, or a table of the stored rows; one at a time, at most 1 GiB."""
    context, _ = find_run(request, run)
    return await _answer(context, run, ExportOrder(run, format_, first, last))


@router.get(
    "/anomalies/{id}/export",
    response_class=FileAnswer,
    status_code=200,
    operation_id="export_anomaly",
    summary="An anomaly as a file",
    responses=_FILE,  # type: ignore[arg-type]
)
async def export_anomaly(
    request: Request,
    *,
    id_: AnomalyId,
    format_: Format = "html",
    first: First = None,
    last: Last = None,
) -> FileAnswer:
    """The same of one anomaly: tables and plots of what lies around it, a bundle of its whole run."""
    context = context_of(request)
    if await anyio.to_thread.run_sync(context.reader.anomaly, id_) is None:
        raise ApiError("anomaly-not-found", where="id", expected="the id of an anomaly", got=repr(id_[:80]))
    return await _answer(context, id_, ExportOrder(id_, format_, first, last))


async def _answer(context: ApiContext, name: str, order: ExportOrder) -> FileAnswer:
    check_word("format", order.format, EXPORT_FORMATS)
    check_order(order.first, order.last)
    if order.format == "zip" and (order.first is not None or order.last is not None):
        expected = "no from and to: a bundle holds the whole run, or it would not replay to the same"
        raise ApiError("invalid-parameter", where="query/format", expected=expected, got="zip with a window")
    exported = await context.export(order)
    file = await anyio.to_thread.run_sync(_take, exported)
    answer = FileAnswer(file, f"{name}.{order.format}")
    answer.headers[ABOUT] = json.dumps(dict(exported.document))
    answer.headers[HEADER] = header(exported.document["coverage"])
    return answer


def _take(exported: Exported) -> BinaryIO:
    """The open file, which lies nowhere any more."""
    file = open(exported.path, "rb")  # noqa: SIM115 - the answer closes it
    exported.path.unlink()
    return file
