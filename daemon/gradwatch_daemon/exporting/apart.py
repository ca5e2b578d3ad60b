"""Exports that HTTP asks for, each in a process of its own, into a file that is gone once it was sent."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from typing import TYPE_CHECKING

from gradwatch_daemon.apart import Apart
from gradwatch_daemon.records.exported import Exported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gradwatch_daemon.records.exported import ExportOrder

BYTES_MAX = 1024 * 1024 * 1024
"""Of one file: it lies on the daemon's disk until it is sent. More is for `gradwatch export` on that machine."""

SECONDS_MAX = 120.0
"""An export that takes longer is ended: about a million updates of 40 signals as text."""

FOLDER = "exports"

COMMAND = (sys.executable, "-m", "gradwatch_daemon.exporter")


class Exporter:
    """One export at a time over a data directory. `profile` and `thresholds` are the rules of the daemon."""

    def __init__(
        self,
        data_dir: Path,
        profile: str,
        thresholds: Mapping[str, Mapping[str, float]],
        *,
        bytes_max: int = BYTES_MAX,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._data_dir, self._profile, self._thresholds, self._bytes_max = data_dir, profile, thresholds, bytes_max
        self._folder = data_dir / FOLDER
        self._apart = Apart("export", command, SECONDS_MAX, "export-too-large")
        shutil.rmtree(self._folder, ignore_errors=True)  # of a daemon that was killed while it sent one

    async def __call__(self, order: ExportOrder) -> Exported:
        """Write the file.

        Raises:
            GradwatchError: `overloaded` while another one is written, `export-too-large`, and what `exporter` refuses.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        target = self._folder / f"{uuid.uuid4().hex}.{order.format}"
        request = {
            "path": str(self._data_dir),
            "target": str(target),
            "bytes_max": self._bytes_max,
            "wanted": {
                "what": order.what,
                "format": order.format,
                "profile": self._profile,
                "thresholds": {kind: dict(numbers) for kind, numbers in self._thresholds.items()},
                "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "first": order.first,
                "last": order.last,
            },
        }
        try:
            document = await self._apart.ask(request)
        except BaseException:
            for left in self._folder.glob(f"*{target.name}*"):
                left.unlink(missing_ok=True)
            raise
        del document["file"]
        return Exported(target, document)
