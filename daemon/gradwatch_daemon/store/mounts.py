"""Which file system a directory lies on: SQLite's write-ahead log needs shared memory, which no network file system has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "9p",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "pvfs2",
        "orangefs",
        "gfs2",
        "ocfs2",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.gcsfuse",
        "fuse.rclone",
        "fuse.ceph",
    ]
)
"""Types in /proc/self/mountinfo on which processes of two machines, or a lost connection, can damage the store."""

TABLE = "/proc/self/mountinfo"
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_type(path: Path) -> str:
    """The type of the network file system an existing path lies on, '' for a local one, and where it cannot be known."""
    try:
        with open(TABLE, encoding="utf-8", errors="surrogateescape") as table:
            kind = mount_type(str(path.resolve()), table)
    except OSError:
        return ""
    return kind if kind in NETWORK else ""


def mount_type(path: str, table: Iterable[str]) -> str:
    """The file system type of the mount that holds an absolute path, by the lines of `mountinfo` (proc_pid_mountinfo(5)).

    The deepest mount point wins, and of several on one point the last, which covers the others.
    """
    best, kind = -1, ""
    for line in table:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[4]).rstrip("/")
        if len(point) >= best and (path == point or path.startswith(f"{point}/")):
            best, kind = len(point), after.split(" ")[0]
    return kind
