"""`gradwatch anomalies`: the list, the gate for scripts, and following through lost connections."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.client import Address, Client
from gradwatch_daemon.cli.failure import CommandError
from gradwatch_daemon.cli.follow import follow
from harness import api_documents as documents
from harness.daemon_stub import TOKEN, DaemonStub, Reply, sse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.command_line import CommandLine

LIST = "/api/v1/anomalies"
STREAM = "/api/v1/stream"


def test_empty_list_with_blind_detectors_says_who_could_not_see(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Nothing found is never said without by whom."""
    stub.answer("GET", LIST, documents.anomalies(detectors=documents.COUNTS, coverage=documents.COVERAGE))

    ended = gradwatch("anomalies", "ant-ppo")

    assert (ended.code, ended.out) == (0, "")
    assert ended.err == (
        "No anomaly found. Detectors: 1 firing, 5 armed, 1 learning, 2 blind. 2 records were lost; 98.3 % is covered.\n"
    )


def test_list_shows_sentence_numbers_and_what_to_try(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Severity is a word and a glyph; a rule without a baseline shows none."""
    stub.answer("GET", LIST, documents.anomalies(documents.anomaly()))

    assert gradwatch("anomalies").out.splitlines() == [
        " ! warning  firing    ant-ppo  update 118  ratio_explosion",
        "   The probability ratio reached 7.5 (limit 5) at update 118.",
        "   value 7.5, limit 5; onset 117, seen 3x; id a1b2c3",
        "   explains: kl_spike",
        "   try: Lower the learning rate.",
    ]


@pytest.mark.parametrize(("value", "shown"), [("NaN", "NaN"), ("Infinity", "Inf"), ("-Infinity", "-Inf"), (0.0, "0")])
def test_list_non_finite_value_is_shown_as_measured(stub: DaemonStub, gradwatch: CommandLine, value: Any, shown: str) -> None:
    """The value of a NaN anomaly is NaN."""
    stub.answer("GET", LIST, documents.anomalies(documents.anomaly(value=value)))

    assert f"   value {shown}, limit 5; " in gradwatch("anomalies").out


def test_list_filters_are_asked_for_and_severity_means_at_or_above(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The API's severity is exact; the command's is a floor, so it filters itself."""
    items = [documents.anomaly(id=severity, severity=severity) for severity in ("info", "warning", "critical")]
    stub.answer("GET", LIST, documents.anomalies(*items))

    flags = [
        "--kind",
        "ratio_explosion",
        "--state",
        "firing",
        "--since",
        "2026-01-31T12:00:00Z",
        "--severity",
        "warning",
        "--json",
    ]
    ended = gradwatch("anomalies", "ant-ppo", *flags, "--severity", "warning", "--json")

    assert [item["id"] for item in json.loads(ended.out)["items"]] == ["warning", "critical"]
    assert stub.requests[0].query == {
        "run": "ant-ppo",
        "kind": "ratio_explosion",
        "state": "firing",
        "since": "2026-01-31T12:00:00Z",
        "limit": "1000",
    }


def test_list_limit_says_that_there_are_more(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """A cut list must not read as all of them."""
    stub.answer("GET", LIST, documents.anomalies(*(documents.anomaly(id=str(n)) for n in range(3))))

    document = json.loads(gradwatch("anomalies", "--limit", 2, "--json").out)

    assert (len(document["items"]), document["more"], document["next"]) == (2, True, None)
    assert "There are more" in gradwatch("anomalies", "--limit", 2).err
    assert "There are more" not in gradwatch("anomalies", "--limit", 3).err


@pytest.mark.parametrize(
    ("changes", "argv", "code"),
    [
        ({}, ("--exit-code",), 10),
        ({"severity": "critical"}, ("--exit-code", "critical"), 10),
        ({"severity": "warning"}, ("--exit-code", "critical"), 0),
        ({"severity": "info"}, ("--exit-code",), 0),
        ({"severity": "info"}, ("--exit-code", "info"), 10),
        ({"state": "resolved"}, ("--exit-code",), 10),
        ({"state": "pending"}, ("--exit-code",), 0),
    ],
    ids=str,
)
def test_gate_exits_10_for_what_fired_at_or_above(
    stub: DaemonStub, gradwatch: CommandLine, changes: dict[str, Any], argv: tuple[str, ...], code: int
) -> None:
    """Below, at and above the gate; what is only pending has not fired."""
    stub.answer("GET", LIST, documents.anomalies(documents.anomaly(**changes)))

    assert gradwatch("anomalies", *argv).code == code


@pytest.mark.parametrize(
    ("changes", "argv", "code", "said"),
    [
        ({"detectors": {"armed": 0, "learning": 0, "blind": 0, "firing": 0}}, (), 11, "no detector can judge yet"),
        ({"detectors": {"armed": 0, "learning": 3, "blind": 0, "firing": 0}}, ("--allow-blind",), 11, "no detector can judge"),
        ({"detectors": {"armed": 7, "learning": 0, "blind": 1, "firing": 0}}, (), 11, "7 armed, 1 blind"),
        ({"detectors": {"armed": 7, "learning": 1, "blind": 0, "firing": 0}}, (), 11, "1 learning"),
        ({"detectors": {"armed": 7, "learning": 0, "blind": 1, "firing": 0}}, ("--allow-blind",), 0, ""),
        ({"coverage": documents.COVERAGE}, ("--allow-blind",), 11, "2 records were lost"),
        ({}, (), 0, ""),
    ],
    ids=str,
)
def test_gate_without_findings_exits_11_when_that_cannot_be_said(
    stub: DaemonStub, gradwatch: CommandLine, changes: dict[str, Any], argv: tuple[str, ...], code: int, said: str
) -> None:
    """Absence is never health: blind, learning or lost is inconclusive."""
    stub.answer("GET", LIST, documents.anomalies(**changes))

    ended = gradwatch("anomalies", "--exit-code", *argv)

    assert ended.code == code
    assert said in ended.err
    assert ("Inconclusive" in ended.err) == (code == 11)


def test_gate_looks_beyond_the_limit_of_the_list(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """--limit and --severity are for reading; the verdict is over everything that fired."""
    first = documents.anomalies(documents.anomaly(severity="info"), documents.anomaly(severity="info"), next="p2")
    second = documents.anomalies(documents.anomaly(severity="critical"))
    stub.answer("GET", LIST, first, first, second)

    assert gradwatch("anomalies", "--limit", 1, "--exit-code").code == 10


def _follow(stub: DaemonStub, notes: list[str], pauses: list[float]) -> Iterator[dict[str, Any]]:
    def connect() -> Client:
        return Client(Address(stub.url, TOKEN, "stub"))

    return follow(connect, {"topics": "anomaly"}, {}, notes.append, pauses.append)


def test_follow_takes_up_the_stream_after_its_last_id(stub: DaemonStub) -> None:
    """What is there comes first and oldest first; a broken stream continues where it broke; nothing comes twice."""
    old, older = documents.anomaly(id="old"), documents.anomaly(id="older")
    fired, resolved = documents.anomaly(id="new"), documents.anomaly(id="new", state="resolved")
    stub.answer("GET", LIST, documents.anomalies(old, older))
    stub.streams.append(sse("hello", {}, "e-4") + sse("anomaly", old, "e-5") + sse("anomaly", fired, "e-6") + b"id: e-7\n")
    stub.streams.append(sse("hello", {}, "e-6") + sse("anomaly", resolved, "e-7"))
    notes: list[str] = []
    pauses: list[float] = []

    told = list(itertools.islice(_follow(stub, notes, pauses), 4))

    assert [(item["id"], item["state"]) for item in told] == [
        ("older", "firing"),
        ("old", "firing"),
        ("new", "firing"),
        ("new", "resolved"),
    ]
    assert [seen.headers.get("last-event-id") for seen in stub.asked(STREAM)] == [None, "e-6"]
    assert len(stub.asked(LIST)) == 1
    assert (len(notes), pauses) == (1, [2.0])


def test_follow_after_a_gap_reads_the_list_again(stub: DaemonStub) -> None:
    """A restarted daemon says that events are missing: what they told is in the list."""
    before, missed = documents.anomaly(id="before"), documents.anomaly(id="missed")
    stub.answer("GET", LIST, documents.anomalies(before), documents.anomalies(missed, before))
    stub.streams.append(sse("hello", {}, "e-1"))
    stub.streams.append(sse("hello", {}, "f-0") + sse("gap", {"reason": "the daemon was restarted"}))

    told = list(itertools.islice(_follow(stub, [], []), 2))

    assert [item["id"] for item in told] == ["before", "missed"]


def test_follow_daemon_that_was_never_there_fails_at_once() -> None:
    """Waiting for a mistyped address would look like a quiet run."""

    def connect() -> Client:
        raise GradwatchError("daemon-unreachable")

    with pytest.raises(GradwatchError):
        next(follow(connect, {}, {}, print, lambda seconds: None))


def test_follow_wrong_token_on_the_way_fails(stub: DaemonStub) -> None:
    """A refusal that waiting does not mend ends it, also after it had connected."""
    stub.answer("GET", LIST, documents.anomalies(documents.anomaly()))
    stub.streams.append(sse("hello", {}, "e-1"))
    stub.answer("GET", STREAM, documents.problem("unauthenticated", "The bearer token is wrong.", 401), status=401)

    with pytest.raises(CommandError) as caught:
        list(_follow(stub, [], []))

    assert caught.value.exit_code == 5


def test_follow_restarting_daemon_is_waited_for(stub: DaemonStub) -> None:
    """Not ready, or something else on the port for a moment: it tries again and goes on."""
    stub.answer("GET", LIST, documents.anomalies(documents.anomaly(id="before")))
    stub.streams.append(sse("hello", {}, "e-1"))
    notes: list[str] = []
    pauses: list[float] = []
    following = _follow(stub, notes, pauses)
    assert next(following)["id"] == "before"
    refusal = json.dumps(documents.problem("not-ready", "The daemon is not ready to serve.", 503)).encode()
    stub.reply("GET", STREAM, Reply(503, refusal), Reply(200, sse("anomaly", documents.anomaly(id="after"), "e-2")))

    assert next(following)["id"] == "after"
    assert len(pauses) == 2


def _end_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first pause be the Ctrl-C of a person who has seen enough."""

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gradwatch_daemon.cli.anomalies.time.sleep", interrupt)


def test_follow_command_prints_json_lines(stub: DaemonStub, gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One document a line, every change, filtered as the list is."""
    _end_follow(monkeypatch)
    changes = [documents.anomaly(count=count) for count in (3, 4)]
    stub.answer("GET", LIST, documents.anomalies(documents.anomaly(id="info", severity="info")))
    stub.streams.append(sse("hello", {}, "e-1") + b"".join(sse("anomaly", change) for change in changes))

    ended = gradwatch("anomalies", "ant-ppo", "--follow", "--severity", "warning", "--json")

    assert ended.code == 130
    assert [json.loads(line) for line in ended.out.splitlines()] == changes
    assert stub.asked(STREAM)[0].query == {"runs": "ant-ppo", "topics": "anomaly"}


def test_follow_command_tells_a_person_when_the_story_changes(
    stub: DaemonStub, gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An anomaly that is seen again is no news; one that resolves is."""
    _end_follow(monkeypatch)
    kl = {"kind": "kl_extreme"}
    changes = [
        documents.anomaly(attached=[]),
        documents.anomaly(attached=[], count=4),
        documents.anomaly(attached=[kl], count=4, update_last=130),
        documents.anomaly(attached=[kl], count=4, update_last=130, state="resolved", update_resolved=140),
    ]
    stub.answer("GET", LIST, documents.anomalies())
    stub.streams.append(sse("hello", {}, "e-1") + b"".join(sse("anomaly", change) for change in changes))

    said = gradwatch("anomalies", "--follow").out

    told = [line.strip() for line in said.splitlines() if "ratio_explosion" in line]
    assert "firing" in told[0]
    assert [line.partition(": ")[2] for line in told[1:]] == ["also kl_extreme at update 130", "resolved at update 140"]


@pytest.mark.parametrize(("since", "shown"), [("2026-01-31T12:04:58Z", 1), ("2026-01-31T12:04:59Z", 0)])
def test_follow_command_since_filters_the_stream_too(
    stub: DaemonStub, gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch, since: str, shown: int
) -> None:
    """At the very moment counts as since."""
    _end_follow(monkeypatch)
    stub.answer("GET", LIST, documents.anomalies())
    stub.streams.append(sse("hello", {}, "e-1") + sse("anomaly", documents.anomaly()))

    assert len(gradwatch("anomalies", "--follow", "--json", "--since", since).out.splitlines()) == shown


@pytest.mark.parametrize(("kind", "shown"), [("ratio_explosion", 1), ("kl_extreme", 1), ("kl_spike", 0)])
def test_follow_command_kind_is_that_of_the_root_or_of_what_it_explains(
    stub: DaemonStub, gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch, kind: str, shown: int
) -> None:
    """Who waits for a KL fault is told when another one explains it."""
    _end_follow(monkeypatch)
    stub.answer("GET", LIST, documents.anomalies())
    stub.streams.append(sse("hello", {}, "e-1") + sse("anomaly", documents.anomaly(attached=[{"kind": "kl_extreme"}])))

    assert len(gradwatch("anomalies", "--follow", "--json", "--kind", kind).out.splitlines()) == shown
