"""Running the command line in this process, against a stub or against nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.main import main
from harness.daemon_stub import TOKEN, DaemonStub

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """`gradwatch` with an environment of its own: an empty runtime directory, and the stub as GRADWATCH_URL if given."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runtime: Path, stub: DaemonStub | None = None
    ) -> None:
        self._capsys = capsys
        for name in ("GRADWATCH_URL", "GRADWATCH_TOKEN", "GRADWATCH_ENDPOINT", "XDG_RUNTIME_DIR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("GRADWATCH_RUNTIME_DIR", str(runtime))
        if stub is not None:
            monkeypatch.setenv("GRADWATCH_URL", stub.url)
            monkeypatch.setenv("GRADWATCH_TOKEN", TOKEN)

    def __call__(self, *argv: Any) -> Ended:
        """Run one command."""
        self._capsys.readouterr()
        try:
            code = main([str(part) for part in argv])
        except SystemExit as ended:  # argparse's own --help
            code = int(ended.code or 0)
        said = self._capsys.readouterr()
        return Ended(code, said.out, said.err)
