"""docs/delivery.md is a contract: each of its sentences has a test, and every answer with data says how much of it arrived."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi.routing import APIRoute

from harness.fake_api import make_daemon

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/delivery.md").read_text(encoding="utf-8")
MARKS = re.findall(r"^- `([a-z-]+)` ", PAGE, re.MULTILINE) + re.findall(r"^\| .* \| `([a-z-]+)` \|$", PAGE, re.MULTILINE)
PROMISE = re.compile(r"pytest\.mark\.promise\(([^)]*)\)")

NO_DATA = {"escalations", "commands", "silences", "artifacts"}
"""What was asked of a run or kept about it by people: nothing of it is sent by a trainer, so nothing of it can be lost."""


def _named() -> dict[str, list[str]]:
    """Mark → the test files that name it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for names in PROMISE.findall(path.read_text(encoding="utf-8")):
            for mark in re.findall(r'"([a-z-]+)"', names):
                found.setdefault(mark, []).append(path.name)
    return found


def test_marks_are_there_once_each() -> None:
    """A mark is the name of one sentence."""
    assert len(MARKS) > 20
    assert sorted(MARKS) == sorted(set(MARKS))


def test_every_sentence_of_the_contract_has_a_test_and_no_test_names_another() -> None:
    """Word by word: what stands there is tested, and what a test claims to hold stands there."""
    named = _named()

    assert sorted(set(MARKS) - named.keys()) == []
    assert sorted(named.keys() - set(MARKS)) == []


@pytest.mark.promise("coverage")
def test_every_answer_with_data_of_a_run_says_its_coverage() -> None:
    """From the routes themselves, so that a new one joins."""
    answers = {route.path: _is_covered(route.response_model) for route in _routes(make_daemon().app) if _has_data(route)}

    assert len(answers) >= 7
    assert [path for path, covered in answers.items() if not covered] == []


def _routes(app: Any) -> list[APIRoute]:
    """All of them; newer versions of FastAPI keep those of a router in it."""
    inside = [getattr(route, "router", None) or getattr(route, "original_router", None) for route in app.routes]
    found = [route for route in app.routes if isinstance(route, APIRoute)]
    return found + [route for router in inside if router is not None for route in _routes(router)]


def _has_data(route: APIRoute) -> bool:
    parts = set(route.path.split("/"))
    return "GET" in route.methods and bool(parts & {"runs", "anomalies"}) and not parts & NO_DATA


def _is_covered(model: Any) -> bool:
    """Whether an answer has a `coverage`, or each of its items."""
    fields = model.model_fields
    items = get_args(fields["items"].annotation) if "items" in fields else ()
    return "coverage" in fields or any("coverage" in item.model_fields for item in items)
