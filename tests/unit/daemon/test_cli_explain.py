"""`gradwatch explain`: of a kind, and of one anomaly with the numbers of its run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harness import api_documents as documents
from harness.command_line import CommandLine
from harness.daemon_stub import DaemonStub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stub() -> Iterator[DaemonStub]:
    """A daemon with one detector and one anomaly of another kind."""
    with DaemonStub() as running:
        running.answer("GET", "/api/v1/detectors", documents.listed(documents.detector(), profile="classic"))
        running.answer("GET", "/api/v1/anomalies/a1b2c3", documents.explained())
        running.answer("GET", "/api/v1/anomalies/k1", documents.explained(id="k1", kind="kl_spike"))
        missing = documents.problem("anomaly-not-found", "No anomaly has this id.", 404)
        running.answer("GET", "/api/v1/runs/ant-ppo/series", documents.series())
        running.answer("GET", "/api/v1/anomalies/kl_spik", missing, status=404)
        yield running


def test_explain_unknown_word_exits_3_and_names_the_nearest_kind(gradwatch: CommandLine) -> None:
    """Neither a kind nor an id."""
    ended = gradwatch("explain", "kl_spik")

    assert (ended.code, ended.out) == (3, "")
    assert "Did you mean kl_spike?" in ended.err


def test_explain_with_a_wrong_token_is_a_refusal_and_not_a_missing_anomaly(
    gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only `anomaly-not-found` means that there is none."""
    monkeypatch.setenv("GRADWATCH_TOKEN", "wrong")

    assert gradwatch("explain", "kl_spike").code == 5


def test_explain_kind_says_everything_of_its_detector(gradwatch: CommandLine) -> None:
    """Meaning, formula, the threshold in force beside the profile's, votes, what to try, what blinds it, sources."""
    said = gradwatch("explain", "kl_spike").out.splitlines()

    assert said == [
        "kl_spike: The policy moved far in one update (warning)",
        "means       Several times as far as it usually does.",
        "fires when  mean((r - 1) - log r) > k3",
        "threshold   k3 > 0.2 nats (the profile has 0.1): mean over the update",
        "vote        warning after 2 of 3 updates at warning or above",
        "warm-up     none",
        "try 1       Lower the learning rate.",
        "needs       policy.kl.k3; blind without it: mon.ppo(new_logp=..., old_logp=...)",
        "fails when  the ratio is clipped before it is passed",
        "source      Schulman 2020",
    ]


def test_explain_optional_and_undefined_needs_are_told_apart(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """What it can do without, and what to do where a signal is sent but not defined."""
    need = {"signal": "s", "call": "ppo", "line": "pass x", "optional": True, "undefined": "pass action_space to watch()"}
    kind = documents.detector(kind="other", needs=[need])
    stub.answer_only("GET", "/api/v1/detectors", documents.listed(kind, profile="classic"))

    said = gradwatch("explain", "other").out.splitlines()

    assert "needs       s; sees less without it: pass x" in said
    assert "            where it is not defined: pass action_space to watch()" in said


def test_explain_anomaly_says_why_it_fired_with_its_numbers(gradwatch: CommandLine) -> None:
    """The run's numbers, what it explains, the steps in order, where the data is; then the detector."""
    said = gradwatch("explain", "k1").out.splitlines()

    assert "ant-ppo  update 118  kl_spike" in said[0]
    assert said[2] == "   value 7.5, limit 5; onset 117, seen 3x; id k1"
    assert "began       update 117, minibatch 4, in stage policy" in said
    assert "explains    kl_spike at update 118 (The policy moved far in one update): value NaN, limit 0.1" in said
    assert [line for line in said if line.startswith("try")] == [
        "try 1       Lower the learning rate.",
        "try 2       Use fewer epochs.",
    ]
    assert "evidence    /api/v1/runs/ant-ppo/series?signal=policy.ratio.max" in said
    assert "coverage    2 records of this run were lost; 98.3 % is covered." in said
    began = said.index(
        "first       The gradient of actor.2.weight deviated first: 41.2 at update 116, step 3 (0.21 was usual)."
    )
    assert said[began + 1 : began + 5] == [
        "signal      grad.norm.mean NaN at update 116; usual 0.4",
        "norms       gradient of actor.2.weight by update: 115: 0.2, 116: 41.2",
        "rests on    63 stored updates before the onset and 14 from it on",
        "table       /api/v1/runs/ant-ppo/layers?attempt=1&rank=0&update=120",
    ]
    assert "means       Several times as far as it usually does." in said


def test_explain_anomaly_shows_what_its_detector_read_and_why_a_value_is_missing(gradwatch: CommandLine) -> None:
    """The updates around it, NaN and infinities as measured."""
    said = gradwatch("explain", "k1").out.splitlines()
    at = said.index("what its detector read:")

    assert [line.split(maxsplit=1) for line in said[at + 1 : at + 7]] == [
        ["UPDATE", "policy.kl.k3"],
        ["7", "0.25"],
        ["8", "NaN"],
        ["9", "Inf"],
        ["10", "-Inf"],
        ["11", "– (no_gradient)"],
    ]


def test_explain_anomaly_lists_what_costs_nothing_before_what_changes_the_training(
    stub: DaemonStub, gradwatch: CommandLine
) -> None:
    """Look, look closer, then try; one that is over needs no closer look."""
    steps = [line.split()[0:2] for line in gradwatch("explain", "k1").out.splitlines() if line.startswith(("look", "try"))]

    assert steps == [["look", "gradwatch"], ["look", "closer"], ["try", "1"], ["try", "2"]]
    for over in ("resolved", "ended"):
        stub.answer_only("GET", "/api/v1/anomalies/k1", documents.explained(id="k1", kind="kl_spike", state=over))
        assert "look closer" not in gradwatch("explain", "k1").out


def test_explain_anomaly_whose_signal_is_gone_says_the_rest(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """A signal that the run does not have is left out; any other refusal is one."""
    gone = documents.problem("signal-not-found", "The run has no such signal.", 404)
    stub.answer_only("GET", "/api/v1/runs/ant-ppo/series")
    stub.answer("GET", "/api/v1/runs/ant-ppo/series", gone, status=404)

    ended = gradwatch("explain", "k1")

    assert ended.code == 0
    assert "what its detector read" not in ended.out


def test_explain_anomaly_of_a_kind_that_is_gone_is_still_shown(gradwatch: CommandLine) -> None:
    """Found under other rules: said, not hidden."""
    ended = gradwatch("explain", "a1b2c3")

    assert ended.code == 0
    assert "ratio_explosion" in ended.out
    assert "The profile classic has no detector ratio_explosion now" in ended.err


def test_explain_json_holds_both_documents(gradwatch: CommandLine) -> None:
    """Of a kind there is no anomaly."""
    of_kind, of_anomaly = (json.loads(gradwatch("explain", word, "--json").out) for word in ("kl_spike", "k1"))

    assert of_kind == {"profile": "classic", "detector": documents.detector(), "anomaly": None, "moment": []}
    assert of_anomaly["anomaly"] == documents.explained(id="k1", kind="kl_spike")
    assert of_anomaly["detector"] == documents.detector()


def test_explain_without_a_daemon_says_a_kind_as_it_comes_and_no_anomaly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What a kind means is known without one; what was found is not."""
    alone = CommandLine(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("GRADWATCH_URL", "http://127.0.0.1:9")

    ended = alone("explain", "kl_spike")

    assert ended.code == 0
    assert ended.out.startswith("kl_spike: ")
    assert "needs       policy.kl.k3" in ended.out
    assert "No daemon answers" in ended.err
    assert json.loads(alone("explain", "kl_spike", "--json").out)["detector"]["kind"] == "kl_spike"
    assert alone("explain", "00a017").code == 4


def test_explain_anomaly_of_a_stand_in_reads_and_names_the_signal_that_was_judged(
    stub: DaemonStub, gradwatch: CommandLine
) -> None:
    """A script logs the KL of its last minibatch: that is shown, and the detector is not called blind."""
    gone = documents.problem("signal-not-found", "The run has no such signal.", 404)
    path = "/api/v1/runs/ant-ppo/series"
    stub.answer_only("GET", path)
    stub.answer("GET", path, gone, status=404)
    stub.answer("GET", path, documents.series(signal="policy.kl.k3.last"))

    said = gradwatch("explain", "k1").out.splitlines()

    assert [seen.query["signal"] for seen in stub.asked(path)] == ["policy.kl.k3", "policy.kl.k3.last"]
    assert any(line.startswith("look        gradwatch series ant-ppo policy.kl.k3.last") for line in said)
    assert "needs       policy.kl.k3; it is not sent here, and policy.kl.k3.last was judged in its place" in said
    assert not any("blind without it" in line for line in said)
