"""docs/delivery.md is a contract: each of its sentences has a test, and every answer with data says how much of it arrived."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gradwatch_daemon.api.coverage import HEADER
from harness.fake_api import make_daemon

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/delivery.md").read_text(encoding="utf-8")
MARKS = re.findall(r"^- `([a-z-]+)` ", PAGE, re.MULTILINE) + re.findall(r"^\| .* \| `([a-z-]+)` \|$", PAGE, re.MULTILINE)
COVERAGE = "#/components/schemas/Coverage"
PROMISE = re.compile(r"pytest\.mark\.promise\(([^)]*)\)")

NO_DATA = {
    "asked of a run, and what it answered": {"escalations", "commands"},
    "came whole, or there is none of it": {"artifacts"},
    "kept by people, and said to them": {"silences", "notify", "deliveries"},
    "of the daemon": {"detectors", "daemon", "tokens", "audit", "keys"},
    "its events are tested one by one": {"stream"},
}
"""Addresses without rows of a run, and why: in their answers nothing can be missing. All others say their coverage."""


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
    """From the document of the API itself, every method and media type, so that a new answer joins or is named above."""
    document = make_daemon().app.openapi()
    schemas = document["components"]["schemas"]
    answers = {
        f"{method} {path} {media}": _is_covered(media, content.get("schema", {}), answer, schemas)
        for path, operations in document["paths"].items()
        if path.startswith("/api/v1/") and not _parts(path) & set().union(*NO_DATA.values())
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        if status.startswith("2")
        for media, content in answer["content"].items()
    }

    assert {"get /api/v1/runs/{run}/series text/csv", "post /api/v1/replay application/json"} <= answers.keys()
    assert len(answers) >= 16
    assert [name for name, covered in answers.items() if not covered] == []


def _parts(path: str) -> set[str]:
    return set(path.split("/"))


def _is_covered(media: str, schema: dict[str, Any], answer: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether a JSON answer has a `coverage` of the one shape, or each of its items; another answer the header."""
    if media != "application/json":
        return HEADER in answer.get("headers", {})
    fields = schemas[_name(schema)]["properties"]
    items = fields.get("items", {}).get("items", {})
    of_items = schemas[_name(items)]["properties"] if items else {}
    return any(COVERAGE in json.dumps(one.get("coverage", "")) for one in (fields, of_items))


def _name(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]
