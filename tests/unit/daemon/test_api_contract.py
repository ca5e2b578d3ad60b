"""What /openapi.json promises against what comes back: generated requests, right and wrong, with and without tokens."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api.access import Scope, TokenBook
from gradwatch_daemon.api.coverage import covered
from gradwatch_daemon.records.exported import Exported
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.fake_api import HOST, TOKEN, make_daemon
from harness.fake_records import make_run, make_view
from harness.stores import ANOMALY, ESCALATION, everything, fill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gradwatch_daemon.records.exported import ExportOrder
    from gradwatch_daemon.records.replayed import ReplayOrder
    from gradwatch_daemon.store.protocol import StoreReader

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
REQUESTS = 5
"""For each operation and mode, derandomised: the same tree makes the same requests."""

DOCUMENT = make_daemon().app.openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
ENDLESS = {"stream"}
"""Its answer has no end: test_api_stream.py reads it."""

OPERATIONS = {
    operation["operationId"]: (path, method)
    for path, operations in sorted(DOCUMENT["paths"].items())
    for method, operation in sorted(operations.items())
    if operation["operationId"] not in ENDLESS
}
KNOWN = {"run": ["ant-ppo"], "name": ["reader"], "kind": ["kl-spike"], "id": [ANOMALY.id, ESCALATION.id]}
"""Path parameters that are there; one that is made up is hardly ever found."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreReader]:
    """A real store with rows and one of every other record."""
    store = SqliteStore.open(tmp_path_factory.mktemp("data"))
    store.commit(everything())
    fill(store, 100)
    reading = store.reader()
    yield reading
    reading.close()
    store.close()


async def export(order: ExportOrder) -> Exported:
    """Stands for an export, which has tests of its own."""
    handle, path = tempfile.mkstemp()
    os.write(handle, b"rows")
    os.close(handle)
    return Exported(Path(path), {"format": order.format, "bytes": 4, "rows": 1, "notes": ["⚠"], "coverage": covered(1, 0, 0)})


async def refuse(order: ReplayOrder) -> dict[str, Any]:
    """Stands for a replay, which has tests of its own."""
    raise GradwatchError("run-not-found", where="run", got=order.run)


MODES = {
    "welcome": (GenerationMode.POSITIVE, [TOKEN], True),
    "stranger": (GenerationMode.POSITIVE, ["weak", "wrong", ""], False),
    "wrong": (GenerationMode.NEGATIVE, [TOKEN], True),
}
"""What is sent: requests that keep to the schema or break it, with which tokens, and whether of things that are there."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_what_the_document_says(name: str, mode: str, reader: StoreReader) -> None:
    """No 5xx, no undocumented status or media type, no body of another shape than is documented."""
    (path, method), (generation, tokens, known) = OPERATIONS[name], MODES[mode]
    operation = DOCUMENT["paths"][path][method]
    told = [parameter for parameter in operation.get("parameters", []) if parameter["in"] != "path"]
    if mode == "wrong" and not told and not operation.get("requestBody"):
        return  # there is nothing that could be wrong: any text is a path parameter
    book = TokenBook(TOKEN)
    secrets = {"weak": book.add("reader", Scope.READ, None, time.time_ns())[1]}
    view = make_view(make_run(attempt=1, world=1))
    daemon = make_daemon({"ant-ppo": view}, reader=reader, book=book, replay=refuse, export=export)
    daemon.reader.raised = [ESCALATION]
    schema = SCHEMA
    schema.app = daemon.app
    sent: list[tuple[int, str]] = []

    @settings(
        max_examples=REQUESTS,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy(generation_mode=generation), data=st.data())
    def ask(case: schemathesis.Case, data: st.DataObject) -> None:
        for parameter in case.path_parameters if known else ():
            case.path_parameters[parameter] = data.draw(st.sampled_from(KNOWN[parameter]))
        if isinstance(case.query.get("wait"), (int, float)):
            del case.query["wait"]  # nobody applies anything here, so it would wait its time out
        if mode == "welcome" and name == "get_series":
            case.query.update(signal="policy.kl.k3", subject="", **{"from": 0, "to": 99}, attempt=1, rank=0)
        if mode == "welcome" and name == "get_chart":
            case.query.update(signals="policy.kl.k3,grad.norm.mean", **{"from": 0, "to": 99}, points=9, attempt=1, rank=0)
        token = data.draw(st.sampled_from(tokens))
        headers = {"Host": HOST, **({"Authorization": f"Bearer {secrets.get(token, token)}"} if token else {})}
        answer = case.call(base_url=f"http://{HOST}", headers=headers)
        sent.append((answer.status_code, answer.text[:300]))
        case.validate_response(answer, checks=CHECKS)

    ask()
    assert sent
    if mode == "welcome" and method == "get" and not {"{id}", "{name}"} & set(path.split("/")) and name != "list_keys":
        assert min(status for status, _ in sent) < 400, sent


def test_every_answer_has_a_schema_and_an_example_that_fits_it() -> None:
    """Of every operation and status, errors too: whoever reads the document alone can write the client."""
    faults = []
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                for media, content in answer.get("content", {}).items():
                    where = f"{method} {path} {status} {media}"
                    given_ = [content["example"]] if "example" in content else []
                    given_ += [example["value"] for example in content.get("examples", {}).values()]
                    validator = jsonschema_rs.validator_for({**content["schema"], "components": DOCUMENT["components"]})
                    binary = media == "application/octet-stream"
                    faults += [f"{where}: no example"] if not given_ and not binary else []
                    faults += [f"{where}: {error.message}" for example in given_ for error in validator.iter_errors(example)]
    assert faults == []
