"""GET runs/{run}/layers: norms by layer, from what the trainer sent at debug."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwatch_daemon.api import moment_models as models
from gradwatch_daemon.api.layers import NORMS_MAX
from gradwatch_daemon.records import Stream
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import make_table, make_view

NAN, INF = float("nan"), float("inf")
PLAIN = {"a.weight": (0.5, 2.0, 0, 0), "a.bias": (0.25, 1.0, 0, 0)}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("update=-1", "query/update"),
        ("update=x", "query/update"),
        ("tables=0", "query/tables"),
        ("tables=201", "query/tables"),
        ("attempt=3", "query/attempt"),
        ("rank=2", "query/rank"),
        ("updates=3", "query/updates"),
    ],
)
async def test_layers_parameter_bad_is_refused_at_its_place(query: str, pointer: str) -> None:
    """And nothing is read."""
    daemon = make_daemon()
    found = problem_of(await daemon.get(f"/runs/ant-ppo/layers?{query}"))
    assert (found["status"], [e["pointer"] for e in found["errors"]]) == (400, [pointer])
    assert daemon.reader.calls == []


async def test_layers_of_a_run_without_tables_says_what_to_do() -> None:
    """An empty table would read as a model without layers."""
    document = (await make_daemon().get("/runs/ant-ppo/layers")).json()
    models.LayersAnswer.model_validate(document)
    assert (document["layers"], document["update"], document["updates"]) == ([], [], [])
    assert "level debug" in document["sentence"]
    assert "gradwatch escalate" in document["sentence"]


async def test_layers_before_the_first_table_names_that() -> None:
    """There are tables, but none up to the update asked for."""
    daemon = make_daemon()
    daemon.reader.sent = [make_table(50, PLAIN)]
    document = (await daemon.get("/runs/ant-ppo/layers?update=49")).json()
    assert (document["update"], document["updates"]) == ([], [50])
    assert document["sentence"] == "No table of layers up to update 49; the first is of update 50."


async def test_layers_that_retention_took_are_said_to_be_gone() -> None:
    """Not that there were none; and nothing of it where a table is answered."""
    daemon = make_daemon({"ant-ppo": replace(make_view(), thinned=64)})
    daemon.reader.sent = [make_table(50, PLAIN)]
    gone, kept = [(await daemon.get(f"/runs/ant-ppo/layers?update={update}")).json() for update in (49, 50)]
    assert gone["sentence"].endswith("Those of thinned rows were taken with them, but for those near an anomaly.")
    assert (gone["coverage"]["thinned"], "thinned" in kept["sentence"]) == (64, False)


async def test_layers_tells_not_measured_from_nan() -> None:
    """The table has NaN for both; the flag beside a norm tells which."""
    daemon = make_daemon()
    rows = {"a": (NAN, INF, 1, 1), "b": (NAN, 3.0, NAN, 0), "c": (-INF, NAN, 1, NAN)}
    daemon.reader.sent = [make_table(50, rows)]
    document = (await daemon.get("/runs/ant-ppo/layers")).json()
    assert document["grad_norm"] == [["NaN", None, "-Infinity"]]
    assert document["weight_norm"] == [["Infinity", 3.0, None]]


async def test_layers_at_an_update_is_the_newest_table_up_to_it() -> None:
    """Several up to it with `tables`, oldest first; a layer that one lacks is null there."""
    daemon = make_daemon()
    other = {"a.bias": (0.125, 1.5, 0, 0), "b": (4.0, 8.0, 0, 0)}
    daemon.reader.sent = [make_table(50, PLAIN), make_table(55, other), make_table(60, PLAIN)]

    document = (await daemon.get("/runs/ant-ppo/layers?update=59&tables=2&attempt=2&rank=0")).json()

    assert ("tables_at", Stream("ant-ppo", 2, 0), "layers", [50, 55]) in daemon.reader.calls
    assert "MainThread" not in daemon.reader.threads_seen
    assert document == {
        "run": "ant-ppo",
        "attempt": 2,
        "rank": 0,
        "layers": ["a.weight", "a.bias", "b"],
        "update": [50, 55],
        "grad_norm": [[0.5, 0.25, None], [None, 0.125, 4.0]],
        "weight_norm": [[2.0, 1.0, None], [None, 1.5, 8.0]],
        "updates": [50, 55, 60],
        "sentence": "3 layers at update 55, the newest table up to update 59.",
        "coverage": {"received": 96, "lost": 2, "share": 96 / 98, "thinned": 0},
    }


async def test_layers_of_a_large_model_is_cut_to_the_newest_tables() -> None:
    """`update` says which are answered, `updates` which there are."""
    daemon = make_daemon()
    wide = {f"layer.{i}": (1.0, 1.0, 0, 0) for i in range(NORMS_MAX // 3 + 1)}
    daemon.reader.sent = [make_table(update, wide) for update in (1, 2, 3)]
    document = (await daemon.get("/runs/ant-ppo/layers?tables=3")).json()
    assert (document["update"], document["updates"]) == ([2, 3], [1, 2, 3])
