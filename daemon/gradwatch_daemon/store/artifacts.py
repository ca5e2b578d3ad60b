"""Files that trainers sent for a command, in `artifacts/` of the data directory: chunk by chunk, the oldest given up first, by
size and by age, and none that a trainer still sends.

What `write` returned from survives kill -9 of the daemon, as a commit does: a chunk that comes twice is written twice to the
same place, and a file is whole once it has its last name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gradwatch_contracts import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from gradwatch_daemon.store.protocol import Keep

FOLDER = "artifacts"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class ArtifactFiles:
    """The files of one data directory, `bytes_max` of all of them together. `under_way` gives run and id of every command that
    may still send chunks: what came of its file makes no room. `find` belongs to any thread, all else to the pipeline's."""

    def __init__(self, data_dir: Path, bytes_max: int = limits.ARTIFACTS_BYTES_MAX) -> None:
        self._folder = data_dir / FOLDER
        self._bytes_max = bytes_max
        self.under_way: Callable[[], Collection[tuple[str, str]]] = tuple

    def write(self, run: str, id_: str, index: int, count: int, data: bytes) -> int | None:
        """Write chunk `index` of `count`; the size of the whole file once it has all of them, else None. Where files are
        too many, the oldest make room.

        Raises:
            OSError: the disk takes no more, or a chunk before this one is missing; what came of the file is gone then.
        """
        whole, part = self._place(run, id_), self._place(run, id_).with_suffix(".part")
        if index == count - 1 and whole.exists():
            return whole.stat().st_size  # this chunk came before, and we ended before the commit
        offset = index * limits.ARTIFACT_CHUNK_BYTES
        try:
            whole.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(part, "r+b" if part.exists() else "wb") as file:
                file.seek(0, 2)
                if file.tell() < offset:
                    raise OSError(f"chunk {index} came before those that belong before it")
                file.seek(offset)
                file.write(data)
                file.truncate()
        except OSError:
            part.unlink(missing_ok=True)
            raise
        if index < count - 1:
            self._give_up_oldest(part)
            return None
        part.replace(whole)
        self._give_up_oldest(whole)
        return offset + len(data)

    def forget_parts(self, wanted: Collection[tuple[str, str]]) -> None:
        """Delete what came of files that never became whole, but of the commands `wanted` (run and id)."""
        keep = self._parts(wanted)
        for part in self._folder.glob("*/*.part"):
            if part not in keep:
                part.unlink(missing_ok=True)

    def thin(self, keep: Keep, now_ns: int) -> int:
        """Give up files that came before the age of `keep`, and the oldest while all together are above its size; how many."""
        old = 0
        if keep.age_ns is not None:
            parts = self._parts(self.under_way())
            for path in self._folder.glob("*/*"):
                if path not in parts and path.stat().st_mtime_ns < now_ns - keep.age_ns:
                    path.unlink(missing_ok=True)
                    old += 1
        if keep.bytes_max is not None:
            self._bytes_max = min(self._bytes_max, keep.bytes_max)
            old += self._give_up_oldest(None)
        return old

    def find(self, run: str, id_: str) -> Path | None:
        """The whole file of a command, None where there is none (any more)."""
        whole = self._place(run, id_)
        return whole if whole.is_file() else None

    def _place(self, run: str, id_: str) -> Path:
        # Run and id match patterns without a separator; an id of dots alone cannot be.
        return self._folder / run / f"{id_}.bin"

    def _parts(self, commands: Collection[tuple[str, str]]) -> set[Path]:
        return {self._place(*one).with_suffix(".part") for one in commands}

    def _give_up_oldest(self, newest: Path | None) -> int:
        # Parts too: one whose trainer died never becomes whole, and goes with the next start.
        files = sorted(self._folder.glob("*/*"), key=lambda path: path.stat().st_mtime_ns)
        total, gone = sum(path.stat().st_size for path in files), 0
        kept = self._parts(self.under_way()) if total > self._bytes_max else set()
        for path in files:
            if total <= self._bytes_max:
                break
            if path not in kept and path != newest:
                total -= path.stat().st_size
                path.unlink(missing_ok=True)
                gone += 1
        return gone


def safe_name(name: str) -> str:
    """A file name as it may stand in a header and in a shell: letters, digits, dots, dashes, at most 100."""
    return _UNSAFE.sub("-", name).strip(".-")[-100:] or "artifact"
