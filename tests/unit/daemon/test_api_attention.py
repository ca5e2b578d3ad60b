"""PATCH of an anomaly and the silences: bodies, words, answers, and what lists and the stream then show."""

from __future__ import annotations

from typing import Any

import pytest

from gradwatch_daemon.api.attention_models import SilenceItem
from gradwatch_daemon.records import Published
from gradwatch_daemon.records.attention import Acknowledge, Acknowledgement, Attention, CreateSilence, EndSilence, Silence
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import T0_NS, T0_TEXT, make_anomaly
from harness.stream_client import StreamClient

PATH = "/api/v1/silences"
BODY = {"run": "ant-ppo", "kind": "nonfinite", "subject": "", "reason": "new clip", "lifetime_s": 60.5, "id": "s1"}
FAR_NS = 2**62


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"run": "ant-pp"}, "body/run"),
        ({"kind": "kl_spyke"}, "body/kind"),
        ({"id": "no id"}, "body/id"),
        ({"reason": ""}, "body/reason"),
        ({"reason": "x" * 501}, "body/reason"),
        ({"lifetime_s": 0}, "body/lifetime_s"),
        ({"lifetime_s": 1e12}, "body/lifetime_s"),
        ({"lifetime_s": "NaN"}, "body/lifetime_s"),
        ({"kinds": "nonfinite"}, "body/kinds"),
    ],
)
async def test_silence_with_a_bad_field_never_reaches_the_pipeline(change: dict[str, Any], pointer: str) -> None:
    """A mistyped run or kind would mute nothing: the nearest is named."""
    daemon = make_daemon()
    async with daemon.client() as client:
        answer = await client.post(PATH, json={**BODY, **change})
    found = problem_of(answer)
    assert (answer.status_code, [error["pointer"] for error in found["errors"]]) == (422, [pointer])
    assert found["did_you_mean"] == {"body/run": "ant-ppo", "body/kind": "kl-spike", "body/kinds": "kind"}.get(pointer)
    assert daemon.pipeline.requests == []


@pytest.mark.parametrize("body", [{}, {"acknowledged": None}, {"acknowledged": False, "note": "x"}, {"acknowledged": 1}])
async def test_acknowledgement_that_says_nothing_or_two_things_is_refused(body: dict[str, Any]) -> None:
    """Neither field, a note with an undo, a number for a bool."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly()]
    async with daemon.client() as client:
        answer = await client.patch("/api/v1/anomalies/a1", json=body)
    assert problem_of(answer)["code"] == "invalid-body"
    assert daemon.pipeline.requests == []


@pytest.mark.parametrize(("method", "path"), [("GET", "nope"), ("DELETE", "nope")])
async def test_unknown_silence_is_not_found(method: str, path: str) -> None:
    """404 with the way to list them."""
    async with make_daemon().client() as client:
        answer = await client.request(method, f"{PATH}/{path}")
    found = problem_of(answer)
    assert (answer.status_code, found["code"]) == (404, "silence-not-found")
    assert "gradwatch silence list" in found["hint"]


async def test_acknowledgement_is_by_the_token_that_asks_and_shown_everywhere() -> None:
    """The answer, GET, the list and the stream show the same document; a list with others keeps them apart."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(), make_anomaly(id="a0")]
    async with daemon.client() as client:
        answer = await client.patch("/api/v1/anomalies/a1", json={"acknowledged": True, "note": "seed 3"})
    assert daemon.pipeline.requests == [Acknowledge("a1", "owner", True, "seed 3")]
    assert answer.status_code == 200
    assert answer.json()["acknowledged"] == {"by": "owner", "at": T0_TEXT, "note": "seed 3"}
    got = (await daemon.get("/anomalies/a1")).json()
    assert got["evidence"].items() >= answer.json()["evidence"].items()
    assert {**got, "evidence": answer.json()["evidence"]} == answer.json()
    listed = (await daemon.get("/anomalies")).json()["items"]
    assert [item["acknowledged"] is not None for item in listed] == [True, False]
    assert listed[0] == answer.json()


async def test_stream_tells_an_anomaly_with_its_attention_and_a_silence_to_every_run() -> None:
    """An event of the topic `silence` without a run concerns all."""
    daemon = make_daemon()
    silence = Silence("s1", None, None, None, "night", "owner", T0_NS, FAR_NS)
    async with StreamClient(daemon, "runs=ant-ppo") as stream:
        await stream.next()
        daemon.publish(silence)
        daemon.hub.publish(
            [Published("anomaly", "ant-ppo", make_anomaly(), Attention("a1", Acknowledgement("ann", T0_NS, "x"), "s1"))]
        )
        first, second = await stream.next(), await stream.next()
    assert (first.name, first.data["run"], first.data["state"]) == ("silence", None, "active")
    assert (second.data["acknowledged"]["by"], second.data["silenced"]) == ("ann", "s1")


async def test_what_is_told_of_a_run_itself_can_be_silenced() -> None:
    """`run_down` is a kind of notification and no detector."""
    daemon = make_daemon()
    async with daemon.client() as client:
        assert (await client.post(PATH, json={**BODY, "kind": "run_down"})).status_code == 201


async def test_silence_carries_every_field_and_is_listed_by_state() -> None:
    """From the body to the pipeline to GET; over, it stays listed."""
    daemon = make_daemon()
    daemon.reader.silenced = [Silence("s0", None, None, None, "old", "ann", T0_NS - 9, T0_NS - 5, None, 3)]
    async with daemon.client() as client:
        made = await client.post(PATH, json=BODY)
        assert daemon.pipeline.requests == [
            CreateSilence("s1", "ant-ppo", "nonfinite", "", "new clip", "owner", 60_500_000_000)
        ]
        assert (made.status_code, made.headers["location"]) == (201, f"{PATH}/s1")
        listed = (await client.get(PATH)).json()
        expired = (await client.get(f"{PATH}?state=expired")).json()["items"]
        ended = await client.delete(f"{PATH}/s1")
    assert [item["id"] for item in listed["items"]] == ["s1", "s0"]
    assert "s0" in [item["id"] for item in expired]
    assert next(item for item in expired if item["id"] == "s0")["muted"] == 3
    assert isinstance(daemon.pipeline.requests[-1], EndSilence)
    assert ended.json()["state"] == "ended"
    SilenceItem.model_validate(made.json())
    assert {key: made.json()[key] for key in ("run", "kind", "subject", "reason", "author")} == {
        "run": "ant-ppo",
        "kind": "nonfinite",
        "subject": "",
        "reason": "new clip",
        "author": "owner",
    }
