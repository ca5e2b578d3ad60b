"""The beginning of an anomaly's id in place of the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness import api_documents as documents
from harness.daemon_stub import DaemonStub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.command_line import CommandLine

LIST = "/api/v1/anomalies"
FIRST, SECOND = "00a017c4d5e6f708", "00a0ffffd5e6f708"
NONE = documents.problem("anomaly-not-found", "No anomaly has this id.", 404)


@pytest.fixture
def stub() -> Iterator[DaemonStub]:
    """A daemon with two anomalies whose ids begin alike."""
    with DaemonStub() as running:
        found = [documents.anomaly(id=FIRST), documents.anomaly(id=SECOND, kind="kl_spike")]
        running.answer("GET", LIST, documents.anomalies(*found))
        running.answer("GET", "/api/v1/detectors", documents.listed(documents.detector(), profile="classic"))
        for part in ("00a0", "00a017", "00a1", "00a"):
            for method, path in (("GET", f"{LIST}/{part}"), ("PATCH", f"{LIST}/{part}"), ("GET", f"{LIST}/{part}/export")):
                running.answer(method, path, NONE, status=404)
            gone = documents.problem("run-not-found", "No run has this name.", 404)
            running.answer("GET", f"/api/v1/runs/{part}/export", gone, status=404)
        running.answer("GET", f"{LIST}/{FIRST}", documents.explained(id=FIRST))
        running.answer("PATCH", f"{LIST}/{FIRST}", documents.anomaly(id=FIRST))
        yield running


@pytest.mark.parametrize("verb", ["explain", "ack", "export"])
def test_beginning_of_several_ids_exits_3_and_names_them(gradwatch: CommandLine, verb: str) -> None:
    """It is not said that there is none."""
    ended = gradwatch(verb, "00a0")

    assert (ended.code, ended.out) == (3, "")
    assert f"{FIRST} (ant-ppo ratio_explosion), {SECOND} (ant-ppo kl_spike)" in ended.err


@pytest.mark.parametrize("verb", ["explain", "ack", "export"])
@pytest.mark.parametrize("what", ["00a1", "00a"])
def test_beginning_of_no_id_or_too_short_a_one_exits_3(gradwatch: CommandLine, verb: str, what: str) -> None:
    """Three characters are not looked for."""
    assert gradwatch(verb, what).code == 3


def test_beginning_of_one_id_is_that_anomaly(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """For reading and for acknowledging; the list shows what can be typed."""
    assert f"id {FIRST[:8]}" in gradwatch("anomalies").out
    assert f"id {FIRST[:8]}" in gradwatch("explain", "00a017").out
    assert gradwatch("ack", "00a017").code == 0
    assert stub.requests[-1].path == f"{LIST}/{FIRST}"
