"""Who gets in, with a real daemon: tokens over restarts, TLS, and what the audit says afterwards."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def _cli(daemon: DaemonProcess, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradwatch_daemon.cli.main", *arguments]
    env = {**daemon.environment, **variables}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def _status(url: str, token: str, method: str = "GET", context: ssl.SSLContext | None = None) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_token_for_others_outlives_a_restart_is_private_and_ends_when_revoked(tmp_path: Path) -> None:
    """Made by the command line, kept as a hash, refused what it may not, told in the audit."""
    with DaemonProcess(tmp_path) as daemon:
        made = _cli(daemon, "token", "add", "grafana", "--scope", "read", "--for", "30d")
        secret = made.stdout.strip()
        assert made.returncode == 0, made.stderr
        daemon.kill()
        daemon.start()
        url = daemon.connection.url
        assert _status(f"{url}/api/v1/runs", secret) == 200
        assert _status(f"{url}/api/v1/tokens", secret) == 403
        assert _status(f"{url}/api/v1/runs/x/escalations/y", secret, "DELETE") == 403
        refused = _cli(daemon, "token", "list", GRADWATCH_TOKEN=secret)
        assert refused.returncode == 5
        assert "scope admin" in refused.stderr
        kept = (daemon.data_dir / "tokens.json").read_text()
        assert secret not in kept
        for name in ("tokens.json", "audit.jsonl", "token"):
            assert (daemon.data_dir / name).stat().st_mode & 0o077 == 0
        assert "grafana" in _cli(daemon, "token", "list").stdout
        assert _cli(daemon, "token", "revoke", "grafana").returncode == 0
        assert _status(f"{url}/api/v1/runs", secret) == 401
        assert _cli(daemon, "token", "revoke", "grafana").returncode == 3
        entries: list[dict[str, Any]] = json.loads(_cli(daemon, "audit", "--json").stdout)["items"]

    told = [(entry["who"], entry["method"], entry["status"]) for entry in entries]
    assert told == [
        ("owner", "DELETE", 404),
        ("owner", "DELETE", 200),
        ("grafana", "DELETE", 403),
        ("owner", "POST", 201),
    ]


def test_tokens_file_that_was_damaged_stops_the_start_and_says_so(tmp_path: Path) -> None:
    """Nobody is let in, or locked out, by a guess."""
    daemon = DaemonProcess(tmp_path)
    daemon.data_dir.mkdir(mode=0o700)
    (daemon.data_dir / "tokens.json").write_text('{"entries": [{"name": "x"}]}')
    done = _cli(daemon, "serve", "--http", "127.0.0.1:0", "--data-dir", str(daemon.data_dir))

    assert done.returncode == 2
    assert "tokens.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_daemon_with_a_certificate_serves_https_and_nothing_else(tmp_path: Path) -> None:
    """The command line verifies it; plain HTTP gets no answer."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    daemon = DaemonProcess(tmp_path)
    command = [sys.executable, "-m", "gradwatch_daemon.cli.main", "serve", "--http", "127.0.0.1:0"]
    command += ["--data-dir", str(daemon.data_dir), "--tls-cert", "cert.pem", "--tls-key", "key.pem"]
    with open(os.devnull, "wb") as null:
        process = subprocess.Popen(command, env=daemon.environment, cwd=tmp_path, stdout=null, stderr=null)
    try:
        wait_for((daemon.runtime_dir / "connection.json").exists, "the daemon to start", 60)
        url = daemon.connection.url
        assert url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        assert wait_for(lambda: _status(f"{url}/api/v1/runs", daemon.token, context=trusting), "an answer") == 200
        assert _cli(daemon, "runs", SSL_CERT_FILE=str(tmp_path / "ca.pem")).returncode == 0
        strange = _cli(daemon, "runs")
        assert strange.returncode == 4
        assert "certificate" in strange.stderr.lower()
        with pytest.raises((urllib.error.URLError, OSError)):
            _status(url.replace("https://", "http://") + "/livez", "")
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_certificate_that_is_none_refuses_to_start(tmp_path: Path) -> None:
    """Before a port is taken or a trainer connects."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("not a certificate")
    daemon = DaemonProcess(tmp_path)
    flags = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    done = _cli(daemon, "serve", "--http", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"), *flags)

    assert done.returncode == 2
    assert "cert.pem" in done.stderr
    assert "Traceback" not in done.stderr
