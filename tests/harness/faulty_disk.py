"""A daemon whose disk fills up, fails or waits at a word of the test: `faulty_disk.c`, compiled and put before libc."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.daemon_process import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_suffix(".c")
FAULTS = ("full", "sync-fails", "sync-waits")


class FaultyDisk(DaemonProcess):
    """`gradwatch serve` on such a disk. Skips the test where nothing compiles C."""

    def __init__(self, home: Path, *flags: str) -> None:
        super().__init__(home, *flags)
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler: a disk that fails cannot be made here")
        self._library = home / "faulty_disk.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", self._library, SOURCE, "-ldl"], check=True)
        self._faults = home / "faults"
        self._faults.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """That of the daemon: with the library in front."""
        return {**super().environment, "LD_PRELOAD": str(self._library), "FAULTY_DISK": str(self._faults)}

    @property
    def plain(self) -> dict[str, str]:
        """That of everybody else."""
        return super().environment

    @contextmanager
    def with_fault(self, name: str) -> Iterator[None]:
        """While inside, the disk does this."""
        assert name in FAULTS
        (self._faults / name).touch()
        try:
            yield
        finally:
            (self._faults / name).unlink()

    @property
    def syncs(self) -> list[str]:
        """`begin` and `end` of each sync of the store so far."""
        log = self._faults / "log"
        return log.read_text().split() if log.exists() else []
