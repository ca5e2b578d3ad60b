"""The audit file: private, only growing, readable after a crash."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from gradwatch_daemon.audit import TAIL_BYTES, AuditFile

if TYPE_CHECKING:
    from pathlib import Path


def test_audit_torn_last_line_is_skipped_and_the_next_entry_is_read(tmp_path: Path) -> None:
    """A crash in the middle of a write costs that entry at most."""
    first = AuditFile(tmp_path)
    first.write({"n": 1})
    first.close()
    with open(first.path, "ab") as file:
        file.write(b'{"n": 2, "half')
    again = AuditFile(tmp_path)
    assert again.newest(10) == [{"n": 1}]
    again.write({"n": 3})
    again.write({"n": 4})
    assert again.newest(1) == [{"n": 4}]
    assert again.newest(10) == [{"n": 4}, {"n": 3}, {"n": 1}]
    again.close()


def test_audit_keeps_everything_shows_the_newest_first_and_is_private(tmp_path: Path) -> None:
    """Nobody else can read who did what, and nothing is ever taken out of the file."""
    audit = AuditFile(tmp_path)
    for n in range(5):
        audit.write({"n": n})
    assert [entry["n"] for entry in audit.newest(3)] == [4, 3, 2]
    assert stat.S_IMODE(audit.path.stat().st_mode) == 0o600
    assert audit.path.read_bytes().count(b"\n") == 5
    audit.close()


def test_audit_larger_than_what_is_read_back_gives_whole_entries(tmp_path: Path) -> None:
    """The first line of the tail is cut somewhere; it is left out."""
    audit = AuditFile(tmp_path)
    for n in range(3):
        audit.write({"n": n, "body": "x" * (TAIL_BYTES // 2)})
    assert [entry["n"] for entry in audit.newest(10)] == [2]
    audit.close()
