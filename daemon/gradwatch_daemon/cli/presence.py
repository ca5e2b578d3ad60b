"""Whether the daemon that wrote `connection.json` is still there. The lock decides: a pid means nothing across containers."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from gradwatch_contracts.connection import LOCK_FILE

if TYPE_CHECKING:
    from pathlib import Path


def is_abandoned(directory: Path) -> bool:
    """Whether the daemon of a runtime directory is known to be gone: its lock is there and nobody holds it. False where that
    cannot be known."""
    try:
        lock = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
