"""GET /playbook: one page for each kind of anomaly, for the person who was just woken by it. Needs no token: it holds no data.

A page is the detector's own words and numbers around a part written by hand, which lies in `gradwatch_daemon/playbook/KIND.md`.
docs/playbook/ of the repository has the same pages.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import PlainTextResponse

from gradwatch_daemon.api.context import DetectorInfo, context_of
from gradwatch_daemon.api.problems import refuse_word

PATH = "/playbook"

EXAMPLE = """\
# KL spike (`kl_spike`)

The policy changed several times as much in one update as it usually does.
"""

router = APIRouter(tags=["detectors"])


def is_playbook(method: str, path: str) -> bool:
    """Whether a request is for one of these pages, which anybody may read."""
    return method in ("GET", "HEAD") and (path == PATH or path.startswith(f"{PATH}/"))


def written_part(kind: str) -> str:
    """What was written by hand about a kind, '' for one of another package."""
    page = files("gradwatch_daemon").joinpath("playbook") / f"{kind}.md"
    return page.read_text(encoding="utf-8").strip() if page.is_file() else ""


def page_of(info: DetectorInfo) -> str:
    """The page of one kind, as Markdown that reads well as it is."""
    steps = [f"{place}. {step}" for place, step in enumerate(info.tries, 1)]
    signal = info.needs[0].signal if info.needs else ""
    commands = [
        "gradwatch explain ID                       # this anomaly, with the numbers of its run",
        *([f"gradwatch series RUN {signal}"] if signal else []),
        "gradwatch escalate RUN --level debug --for 50    # layers, worst samples, second moments of the next updates",
    ]
    parts = [
        f"# {info.title} (`{info.kind}`)",
        info.meaning,
        *(["## What to try, cheapest first", "\n".join(steps)] if steps else []),
        "## Look at it",
        "\n".join(["```text", *commands, "```"]),
        *(["## From experience", written] if (written := written_part(info.kind)) else []),
        "## When it fires",
        f"{info.formula[:1].upper()}{info.formula[1:]}. At worst {info.severity.value}. Warm-up: {info.warm_up}.",
        "## What it cannot know",
        info.fails_when,
        f"Source: {info.source}",
    ]
    return "\n\n".join(parts) + "\n"


def index_of(catalogue: Sequence[DetectorInfo]) -> str:
    """The list of all pages."""
    lines = [f"- {info.kind}: {info.title}. {PATH}/{info.kind}" for info in catalogue]
    return "\n".join(["# Playbook", "", "One page for each kind of anomaly, in the order of causes.", "", *lines]) + "\n"


class Page(PlainTextResponse):
    """Markdown that a browser shows instead of saving it."""

    charset = "utf-8"


_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}}}}


@router.get(PATH, response_class=Page, operation_id="list_playbook", summary="Pages on each kind", responses=_TEXT)
async def list_playbook(request: Request) -> Page:
    """What there is to read."""
    return Page(index_of(context_of(request).catalogue))


@router.get(f"{PATH}/{{kind}}", response_class=Page, operation_id="get_playbook", summary="Page on a kind", responses=_TEXT)
async def get_playbook(
    request: Request, kind: Annotated[str, Path(description="Kind of anomaly", examples=["kl_spike"])]
) -> Page:
    """What it means, what to try, what it looks like and is not."""
    catalogue = {info.kind: info for info in context_of(request).catalogue}
    if kind not in catalogue:
        raise refuse_word("route-not-found", "playbook", kind, catalogue)
    return Page(page_of(catalogue[kind]))
