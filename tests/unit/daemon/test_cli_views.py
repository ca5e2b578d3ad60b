"""The verbs that show: as tables for people, as the API's own document with --json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.columns import STATUS_REASON, Status
from harness import api_documents as documents

if TYPE_CHECKING:
    from harness.command_line import CommandLine
    from harness.daemon_stub import DaemonStub

RUNS = "/api/v1/runs"
RUN = "/api/v1/runs/ant-ppo"


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_unknown_run_exits_3_and_names_the_nearest(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The daemon knows the runs; its suggestion is shown."""
    refusal = documents.problem("run-not-found", "No run has this name.", 404, did_you_mean="ant-ppo")
    stub.answer("GET", "/api/v1/runs/ant-pp", refusal, status=404)

    ended = gradwatch("runs", "ant-pp")

    assert (ended.code, ended.out) == (3, "")
    assert ended.err.splitlines() == [
        "gradwatch: No run has this name.",
        "  run: expected a run that this daemon knows, got 'ant-pp'",
        "  Did you mean ant-ppo? List the runs with `gradwatch runs`.",
    ]


def test_runs_empty_list_says_so_on_stderr(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Nothing on stdout, because nothing is the data."""
    stub.answer("GET", RUNS, documents.listed())

    ended = gradwatch("runs")

    assert (ended.code, ended.out, ended.err) == (0, "", "No run has connected yet.\n")


def test_runs_table_shows_level_blind_detectors_and_coverage(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """What is missing stands beside what is there; before the first update there are dashes, not zeros."""
    fresh = documents.run_summary(
        run="new",
        update_last=None,
        updates_total=None,
        level={"base": "normal", "pin": None, "effective": None},
        coverage={"received": 0, "lost": 0, "share": None, "thinned": 0},
        detectors={"armed": 0, "learning": 0, "blind": 0, "firing": 0},
    )
    stub.answer("GET", RUNS, documents.listed(documents.run_summary(), fresh))

    _, first, second = gradwatch("runs").out.splitlines()

    assert "120/500" in first
    assert "1 firing, 5 armed, 1 learning, 2 blind" in first
    assert "98.3 %" in first
    assert second.split()[:6] == ["new", "2", "live", "–", "–", "1"]
    assert "none yet" in second


def test_runs_state_is_asked_for(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The filter is the daemon's."""
    stub.answer("GET", RUNS, documents.listed())

    gradwatch("runs", "--state", "crashed")

    assert stub.asked(RUNS)[0].query["state"] == "crashed"


def test_run_detail_shows_blind_reason_and_losses(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Why a detector is blind, and what to add; what was lost, and why."""
    stub.answer("GET", RUN, documents.run_detail())
    stub.answer("GET", "/api/v1/anomalies", documents.anomalies(documents.anomaly()))

    said = gradwatch("runs", "ant-ppo").out

    assert "  blind    entropy_low [arm]: policy.entropy.norm: add entropy=" in said.splitlines()
    assert "lost       2 records: outbox full" in said.splitlines()
    assert "sessions   1 of 4" in said
    assert "anomaly    a1b2c3  warning   ratio_explosion since 117" in said.splitlines()
    assert "overhead   the agent takes 2.4% of an update's time (since update 41)" in said.splitlines()
    assert gradwatch("status", "ant-ppo").out == said


def test_health_asks_without_a_token(stub: DaemonStub, gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's health check has none."""
    monkeypatch.delenv("GRADWATCH_TOKEN")
    stub.answer("GET", "/livez", {"status": "alive"})

    assert gradwatch("health").out == f"alive at {stub.url}\n"
    assert json.loads(gradwatch("health", "--json").out) == {"status": "alive", "url": stub.url}


def test_token_prints_the_token_alone(gradwatch: CommandLine, stub: DaemonStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """For `curl -H "Authorization: Bearer $(gradwatch token)"`; without one it refuses and never prints an empty line."""
    assert gradwatch("token").out == "stub-token\n"
    assert json.loads(gradwatch("token", "--json").out) == {"url": stub.url, "token": "stub-token"}
    monkeypatch.delenv("GRADWATCH_TOKEN")

    ended = gradwatch("token")

    assert (ended.code, ended.out) == (5, "")


def test_token_link_opens_the_dashboard_once(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The code stands behind the #, so that no server, proxy or log sees it."""
    made = {"code": "once_abc", "expires_at": "2026-01-31T12:15:00.000Z"}
    stub.answer("POST", "/session/codes", made, status=201)

    assert gradwatch("token", "link").out == f"{stub.url}/#code=once_abc\n"
    assert json.loads(gradwatch("token", "link", "--json").out) == {
        "url": f"{stub.url}/#code=once_abc",
        "expires_at": "2026-01-31T12:15:00.000Z",
    }


def test_token_link_leads_where_people_reach_the_daemon(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """`public_url` of its configuration, which the daemon tells."""
    made = {"code": "once_abc", "expires_at": "2026-01-31T12:15:00.000Z", "public_url": "https://gpu7.lab/watch"}
    stub.answer("POST", "/session/codes", made, status=201)
    assert gradwatch("token", "link").out == "https://gpu7.lab/watch/#code=once_abc\n"


def test_signals_missing_value_shows_its_reason(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Never measured, measured once but not now, and NaN are three different lines."""
    reason = STATUS_REASON[Status.LEVEL]
    items = [
        documents.signal_item(signal="a.never", value_last=None, status="level", reason=reason, measured=0),
        documents.signal_item(signal="b.stale", value_last=0.5, status="level", reason=reason),
        documents.signal_item(signal="c.nan", value_last="NaN"),
    ]
    stub.answer("GET", f"{RUN}/signals", documents.listed(*items, coverage=documents.COVERAGE))

    ended = gradwatch("signals", "ant-ppo")

    _, never, stale, nan = ended.out.splitlines()
    assert ended.err == "2 records of this run were lost; 98.3 % is covered.\n"

    assert "– (never measured)" in never
    assert never.endswith(f"– ({reason})")
    assert " 0.5 " in stale
    assert stale.endswith(f"– ({reason})")
    assert " NaN " in nan
    assert nan.endswith("measured")


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.MEASURED])
def test_series_not_measured_shows_the_reason_of_its_status(stub: DaemonStub, gradwatch: CommandLine, status: Status) -> None:
    """A dash and the clause, never a number."""
    one = {name: [None] for name in ("low", "high", "last")}
    answer = documents.series(
        **one,
        update=[7],
        at=["2026-01-31T12:00:00.000Z"],
        env_steps=[None],
        measured=[0],
        nonfinite=[0],
        status=[status.name.lower()],
    )
    stub.answer("GET", f"{RUN}/series", answer)

    assert gradwatch("series", "ant-ppo", "policy.kl.k3").out.splitlines()[1].strip() == f"7  – ({STATUS_REASON[status]})"


def test_series_raw_points_show_nan_and_infinities_as_they_are(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Measured NaN is NaN; the unit and what was lost are said beside it."""
    stub.answer("GET", f"{RUN}/series", documents.series())

    ended = gradwatch("series", "ant-ppo", "policy.kl.k3")

    assert _rows(ended.out)[1:5] == [["7", "0.25"], ["8", "NaN"], ["9", "Inf"], ["10", "-Inf"]]
    assert "in nats: mean of (r - 1) - log r, whole update" in ended.err
    assert "2 records of this run were lost" in ended.err


def test_series_buckets_tell_nan_from_not_measured(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """A bucket of NaN alone has no low and high; an empty one has nothing, with the reason."""
    stub.answer("GET", f"{RUN}/series", documents.buckets())

    _, whole, nan, empty = gradwatch("series", "ant-ppo", "policy.kl.k3", "--points", "3").out.splitlines()

    assert whole.split() == ["0-63", "0.125", "0.5", "NaN", "64", "1"]
    assert "– (no finite value)" in nan
    assert " NaN " in nan
    assert empty.count(f"– ({STATUS_REASON[Status.LEVEL]})") == 3


def test_series_range_and_place_are_asked_for(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Every flag arrives under the API's name."""
    stub.answer("GET", f"{RUN}/series", documents.series())

    flags = ["--subject", "arm", "--from", "3", "--to", "9", "--points", "5", "--attempt", "2", "--rank", "1"]
    gradwatch("series", "ant-ppo", "policy.entropy.raw", *flags)

    assert stub.requests[0].query == {
        "signal": "policy.entropy.raw",
        "subject": "arm",
        "from": "3",
        "to": "9",
        "points": "5",
        "attempt": "2",
        "rank": "1",
    }


def test_detectors_table_and_one_entry(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The threshold in force, and that the profile has another."""
    broken = [{"name": "mine", "origin": "pkg 1.0", "reason": "ImportError: no"}]
    stub.answer("GET", "/api/v1/detectors", documents.listed(documents.detector(), profile="classic", broken=broken))

    assert "k3 > 0.2" in gradwatch("detectors").out
    assert "not there: mine of pkg 1.0: ImportError: no" in gradwatch("detectors").err
    assert "(the profile has 0.1)" in gradwatch("detectors", "kl_spike").out
    assert json.loads(gradwatch("detectors", "kl_spike", "--json").out) == documents.detector()


def test_detectors_unknown_kind_exits_3_and_names_the_nearest(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The catalogue is at hand, so the nearest is known."""
    stub.answer("GET", "/api/v1/detectors", documents.listed(documents.detector(), profile="classic", broken=[]))

    ended = gradwatch("detectors", "kl_spik")

    assert ended.code == 3
    assert "Did you mean kl_spike?" in ended.err


@pytest.mark.parametrize(
    ("argv", "path", "document"),
    [
        (("runs",), RUNS, documents.listed(documents.run_summary())),
        (("runs", "ant-ppo"), RUN, documents.run_detail()),
        (("signals", "ant-ppo"), f"{RUN}/signals", documents.listed(documents.signal_item(), coverage=documents.COVERAGE)),
        (("series", "ant-ppo", "policy.kl.k3"), f"{RUN}/series", documents.series()),
        (("detectors",), "/api/v1/detectors", documents.listed(documents.detector(), profile="classic", broken=[])),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_json_is_the_document_of_the_api(
    stub: DaemonStub, gradwatch: CommandLine, argv: tuple[str, ...], path: str, document: Any
) -> None:
    """Same keys, same values, one document, nothing else on stdout."""
    stub.answer("GET", path, document)

    ended = gradwatch(*argv, "--json")

    assert (ended.code, json.loads(ended.out)) == (0, document)


def test_control_characters_of_a_trainer_do_not_reach_the_terminal(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """A user's key or sentence could clear the screen or rewrite lines."""
    hostile = documents.signal_item(subject="\x1b[2Jx\r\x07")
    stub.answer("GET", f"{RUN}/signals", documents.listed(hostile, coverage=documents.COVERAGE))

    said = gradwatch("signals", "ant-ppo").out

    assert "\\x1b[2Jx\\x0d\\x07" in said
    assert "\x1b" not in said

    stub.answer("GET", RUN, documents.run_detail(verbs=["stop\x1b[2J"]))
    stub.answer("GET", "/api/v1/anomalies", documents.anomalies(documents.anomaly(subject="head\x1b[2J")))
    assert "stop\\x1b[2J" in gradwatch("runs", "ant-ppo").out
    assert "head\\x1b[2J" in gradwatch("anomalies").out


def test_run_name_is_one_part_of_the_path(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """A slash in an argument must not choose another address."""
    gradwatch("runs", "../detectors?x=1")

    assert stub.requests[0].path == "/api/v1/runs/..%2Fdetectors%3Fx%3D1"
