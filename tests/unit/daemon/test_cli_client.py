"""Finding the daemon, and what each way of not being answered turns into."""

from __future__ import annotations

import json
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.connection import Connection
from gradwatch_contracts.errors import CODES, GradwatchError
from gradwatch_daemon.api import attention_models, control_models, models, run_models, service_models
from gradwatch_daemon.api.problem_models import Problem
from gradwatch_daemon.cli.client import Address, Client, ServerEvent, find_daemon, local_daemon, read_events
from gradwatch_daemon.cli.failure import CommandError
from gradwatch_daemon.places import DirectoryLock
from harness import api_documents as documents
from harness.command_line import CommandLine
from harness.daemon_stub import TOKEN, DaemonStub, Reply

if TYPE_CHECKING:
    from pathlib import Path

UID = os.getuid()


def _write_connection(directory: Path, url: str = "http://127.0.0.1:9470", mode: int = 0o600) -> Path:
    path = directory / "connection.json"
    token_file = directory / "token"
    token_file.write_text("file-token\n", encoding="ascii")
    path.write_text(Connection("ipc:///x", url, "secret", str(token_file), 7).to_json(), encoding="utf-8")
    path.chmod(mode)
    return path


def test_find_daemon_without_file_or_variable_is_unreachable(tmp_path: Path) -> None:
    """The refusal names the file it looked for and what to do."""
    with pytest.raises(GradwatchError) as caught:
        find_daemon({"GRADWATCH_RUNTIME_DIR": str(tmp_path)}, UID)

    assert caught.value.code.slug == "daemon-unreachable"
    assert str(tmp_path / "connection.json") in str(caught.value)
    assert "gradwatch serve" in caught.value.next_step


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_find_daemon_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """In a shared directory such a file may point to somebody else's daemon."""
    _write_connection(tmp_path, mode=mode)

    with pytest.raises(GradwatchError, match="nobody else can write"):
        find_daemon({"GRADWATCH_RUNTIME_DIR": str(tmp_path)}, UID)


def test_find_daemon_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """The owner counts, not only the mode."""
    path = _write_connection(tmp_path)
    if UID == 0:
        os.chown(path, 4242, -1)
        other = UID + 1
    else:
        other = UID + 1

    with pytest.raises(GradwatchError, match="file of this user"):
        find_daemon({"GRADWATCH_RUNTIME_DIR": str(tmp_path)}, other)


def test_find_daemon_broken_file_is_refused(tmp_path: Path) -> None:
    """Half a file is no connection."""
    _write_connection(tmp_path).write_text('{"url": "http', encoding="utf-8")

    with pytest.raises(GradwatchError, match=r"connection\.json"):
        find_daemon({"GRADWATCH_RUNTIME_DIR": str(tmp_path)}, UID)


def test_find_daemon_file_of_a_killed_daemon_gives_its_token_to_nobody(tmp_path: Path) -> None:
    """Whoever binds its port next would be the owner: also when the variable names that port."""
    path = _write_connection(tmp_path)
    env = {"GRADWATCH_RUNTIME_DIR": str(tmp_path)}
    DirectoryLock(tmp_path, "").release()

    for asked in (env, {**env, "GRADWATCH_URL": "http://127.0.0.1:9470"}):
        with pytest.raises(GradwatchError, match=r"pid 7 is gone") as caught:
            find_daemon(asked, UID)
        assert caught.value.code.slug == "daemon-unreachable"
        assert "gradwatch serve" in caught.value.next_step
    assert local_daemon(env, UID) is None
    assert find_daemon({**env, "GRADWATCH_URL": "http://gpu7:9470"}, UID).token == ""
    assert path.exists()


def test_find_daemon_file_of_a_daemon_that_holds_its_lock_is_believed(tmp_path: Path) -> None:
    """Whatever its pid means here: in a container it is another process, or none."""
    _write_connection(tmp_path)
    lock = DirectoryLock(tmp_path, "")

    assert find_daemon({"GRADWATCH_RUNTIME_DIR": str(tmp_path)}, UID).token == "file-token"
    lock.release()


def test_find_daemon_reads_the_file(tmp_path: Path) -> None:
    """URL and token of a daemon of this user."""
    path = _write_connection(tmp_path)

    found = find_daemon({"GRADWATCH_RUNTIME_DIR": str(tmp_path)}, UID)

    assert found == Address("http://127.0.0.1:9470", "file-token", str(path))


def test_find_daemon_variables_win_over_the_file(tmp_path: Path) -> None:
    """A remote daemon is named on purpose."""
    _write_connection(tmp_path)
    env = {"GRADWATCH_RUNTIME_DIR": str(tmp_path), "GRADWATCH_URL": "http://gpu7:9470/", "GRADWATCH_TOKEN": "t"}

    assert find_daemon(env, UID) == Address("http://gpu7:9470", "t", "GRADWATCH_URL")


@pytest.mark.parametrize(("url", "token"), [("http://gpu7:9470", ""), ("http://127.0.0.1:9470", "file-token")])
def test_find_daemon_token_of_the_file_goes_to_its_own_url_only(tmp_path: Path, url: str, token: str) -> None:
    """A local token must never be sent to another machine."""
    _write_connection(tmp_path)

    assert find_daemon({"GRADWATCH_RUNTIME_DIR": str(tmp_path), "GRADWATCH_URL": url}, UID).token == token


@pytest.mark.parametrize("url", ["gpu7:9470", "ftp://gpu7", "file:///etc/passwd"])
def test_find_daemon_url_of_another_scheme_is_refused(tmp_path: Path, url: str) -> None:
    """Only HTTP is spoken."""
    with pytest.raises(GradwatchError, match="GRADWATCH_URL"):
        find_daemon({"GRADWATCH_RUNTIME_DIR": str(tmp_path), "GRADWATCH_URL": url}, UID)


def test_client_closed_port_is_unreachable() -> None:
    """Exit 4, with the address, where it came from, and why."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        client = Client(Address(f"http://127.0.0.1:{held.getsockname()[1]}", "t", "GRADWATCH_URL"))
        with pytest.raises(CommandError) as caught:
            client.get("/livez")

    assert caught.value.exit_code == 4
    assert "from GRADWATCH_URL" in caught.value.why
    assert "refused" in caught.value.why


@pytest.mark.parametrize("slug", sorted(CODES))
def test_client_problem_document_ends_with_the_exit_code_of_its_code(stub: DaemonStub, slug: str) -> None:
    """One table decides: HTTP status and exit code of a refusal agree."""
    code = CODES[slug]
    stub.answer("GET", "/x", documents.problem(slug, code.title, code.http), status=code.http)

    with pytest.raises(CommandError) as caught:
        Client(Address(stub.url, TOKEN, "")).get("/x")

    assert (caught.value.exit_code, caught.value.code, caught.value.what) == (code.exit, slug, code.title)


@pytest.mark.parametrize(("status", "exit_code"), [(418, 2), (403, 5), (409, 5), (507, 1)])
def test_client_problem_of_a_newer_daemon_keeps_its_kind(stub: DaemonStub, status: int, exit_code: int) -> None:
    """A code we do not know still ends as what its status says."""
    stub.answer("GET", "/x", documents.problem("from-the-future", "Something new.", status), status=status)

    with pytest.raises(CommandError) as caught:
        Client(Address(stub.url, TOKEN, "")).get("/x")

    assert (caught.value.exit_code, caught.value.what) == (exit_code, "Something new.")


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"", b'{"detail": "x"}', b"[1]"])
def test_client_error_without_problem_document_is_not_a_daemon(stub: DaemonStub, body: bytes) -> None:
    """Something else listens there."""
    stub.reply("GET", "/x", Reply(502, body))

    with pytest.raises(CommandError, match="HTTP 502") as caught:
        Client(Address(stub.url, TOKEN, "")).get("/x")

    assert caught.value.exit_code == 4


def test_client_answer_that_is_no_json_is_not_a_daemon(stub: DaemonStub) -> None:
    """A captive portal says 200 to everything."""
    stub.reply("GET", "/x", Reply(200, b"<html>"))

    with pytest.raises(CommandError) as caught:
        Client(Address(stub.url, TOKEN, "")).get("/x")

    assert caught.value.exit_code == 4


def test_client_redirect_is_not_followed(stub: DaemonStub) -> None:
    """It would carry the token along."""
    stub.reply("GET", "/x", Reply(302, b"", {"Location": "/elsewhere"}))

    with pytest.raises(CommandError, match="HTTP 302"):
        Client(Address(stub.url, TOKEN, "")).get("/x")

    assert stub.asked("/elsewhere") == []


def test_client_proxy_of_the_environment_is_not_used(stub: DaemonStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster's proxy cannot reach this machine's loopback, and must not see the token."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    stub.answer("GET", "/livez", {"status": "alive"})

    assert Client(Address(stub.url, "", "")).get("/livez") == {"status": "alive"}


def test_client_request_carries_token_parameters_and_body(stub: DaemonStub) -> None:
    """What is None is not sent; names that Python reserves lose their underscore."""
    stub.answer("POST", "/x", {})

    Client(Address(stub.url, TOKEN, "")).post("/x", {"a": 1}, from_=0, to=None, q="a b&c")

    (seen,) = stub.requests
    assert (seen.query, seen.body) == ({"from": "0", "q": "a b&c"}, {"a": 1})
    assert seen.headers["authorization"] == f"Bearer {TOKEN}"
    assert seen.headers["content-type"] == "application/json"


def test_client_list_follows_every_page(stub: DaemonStub) -> None:
    """A second page is not a detail."""
    stub.answer("GET", "/x", documents.listed({"a": 1}, next="p2"), documents.listed({"a": 2}, next=None))

    answer = Client(Address(stub.url, TOKEN, "")).listed("/x", state="live")

    assert answer == {"items": [{"a": 1}, {"a": 2}], "next": None}
    assert [seen.query.get("cursor") for seen in stub.requests] == [None, "p2"]
    assert {seen.query["state"] for seen in stub.requests} == {"live"}


def test_read_events_parses_ids_names_comments_and_several_data_lines() -> None:
    """Bytes as the stream sends them; an unfinished event at the end is dropped."""
    raw = b'retry: 2000\nid: e-1\nevent: hello\ndata: {"a":\ndata: 1}\n\n: still here\n\nevent: gap\ndata: 2\r\n\r\ndata: 3\n'

    events = list(read_events(raw.splitlines(keepends=True)))

    assert events == [ServerEvent("e-1", "hello", {"a": 1}), ServerEvent("", "gap", 2)]


@pytest.mark.parametrize(
    ("model", "document"),
    [
        (models.RunSummary, documents.run_summary()),
        (run_models.RunDetail, documents.run_detail()),
        (models.SignalItem, documents.signal_item()),
        (models.SeriesAnswer, documents.series()),
        (models.SeriesAnswer, documents.buckets()),
        (models.AnomalyItem, documents.anomaly()),
        (models.AnomalyList, documents.anomalies(documents.anomaly())),
        (control_models.EscalationItem, documents.escalation()),
        (attention_models.SilenceItem, documents.silence()),
        (control_models.CommandItem, documents.command()),
        (service_models.DetectorItem, documents.detector()),
        (service_models.DaemonAnswer, documents.daemon()),
        (Problem, documents.problem("run-not-found", "No run has this name.", 404)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_stub_documents_are_what_the_api_answers(model: type[models.Model], document: documents.Document) -> None:
    """Same fields, same words: what the tests of the command line read is what the daemon writes."""
    parsed = model.model_validate(document)

    assert json.loads(parsed.model_dump_json(by_alias=True)) == document


def test_command_line_wrong_token_is_refused(
    stub: DaemonStub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit 5; what, why and what next on stderr, nothing on stdout."""
    gradwatch = CommandLine(monkeypatch, capsys, tmp_path, stub)
    monkeypatch.setenv("GRADWATCH_TOKEN", "wrong")

    ended = gradwatch("runs")

    assert (ended.code, ended.out) == (5, "")
    assert ended.err.startswith("gradwatch: The bearer token is missing or wrong.\n  ")


def test_connection_file_of_the_test_is_private(tmp_path: Path) -> None:
    """The fixture writes what the daemon writes: mode 0600."""
    assert stat.S_IMODE(_write_connection(tmp_path).stat().st_mode) == 0o600
