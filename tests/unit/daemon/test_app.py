"""What `gradwatch serve` sets for its process."""

from __future__ import annotations

import logging
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon import app
from gradwatch_daemon.config import load_config
from gradwatch_daemon.ingest.socket import IngestSocket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def untouched() -> Iterator[None]:
    """The interpreter and the log as they were."""
    interval, handlers, level = sys.getswitchinterval(), logging.root.handlers[:], logging.root.level
    yield
    sys.setswitchinterval(interval)
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_daemon_on_a_socket_in_a_directory_open_to_others_refuses_to_start(tmp_path: Path, mode: int) -> None:
    """Such a socket asks for no secret: whoever can enter the directory could send as a trainer, or bind it next."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(mode)
    given = {"data_dir": "d", "http": "127.0.0.1:0", "ingest": f"ipc://{place}/i.ipc"}
    config = load_config(given, {"GRADWATCH_RUNTIME_DIR": str(tmp_path / "r")}, tmp_path)

    with pytest.raises(GradwatchError, match=r"open to others.*--ingest") as caught:
        app.Daemon(config)

    assert str(place) in str(caught.value)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("url", "hosts"), [("", ()), ("https://gpu7.lab:8443/watch/", ("gpu7.lab",))])
def test_host_that_links_lead_to_may_be_asked_under(tmp_path: Path, url: str, hosts: tuple[str, ...]) -> None:
    """Or each link would end in a refusal."""
    config = load_config({"data_dir": "d", "public_url": url}, {"GRADWATCH_RUNTIME_DIR": str(tmp_path / "r")}, tmp_path)
    assert app._public_host(config) == hosts
    assert not config.public_url.endswith("/")


def test_ingest_socket_is_of_this_user_alone(tmp_path: Path) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        with IngestSocket(f"ipc://{tmp_path}/i.ipc"):
            assert stat.S_IMODE((tmp_path / "i.ipc").stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.usefixtures("untouched")
def test_daemon_lets_requests_have_the_interpreter_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it serves; otherwise a request waits 5 ms at each hand-over beside a busy pipeline."""
    seen: list[float] = []

    class Served:
        readable, url, ingest = False, "http://x", "ipc://x"

        def __init__(self, config: object) -> None:
            pass

        def dashboard(self) -> str:
            return "http://x/#"

        def run(self) -> int:
            seen.append(sys.getswitchinterval())
            return 7

    monkeypatch.setattr(app, "Daemon", Served)
    config = load_config({"data_dir": "d"}, {"GRADWATCH_RUNTIME_DIR": str(tmp_path / "r")}, tmp_path)
    assert app.run_daemon(config) == 7
    assert seen == [pytest.approx(app.SWITCH_S)]
