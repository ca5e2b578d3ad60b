"""Which file system a data directory lies on: the deepest mount decides; network ones are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.store import mounts
from gradwatch_daemon.store.mounts import NETWORK, mount_type, network_type
from gradwatch_daemon.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

TABLE = [
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
    "30 22 0:40 / /home rw - nfs4 filer:/home rw,vers=4.2\n",
    "31 30 0:41 / /home/ada/local rw - xfs /dev/sdb1 rw\n",
    "32 22 0:42 / /mnt/with\\040space rw - cifs //filer/x rw\n",
    "33 22 0:43 / /twice rw - nfs filer:/a rw\n",
    "34 22 0:44 / /twice rw - tmpfs tmpfs rw\n",
    "a broken line\n",
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ada/runs", "nfs4"),
        ("/home", "nfs4"),
        ("/homeless/runs", "ext4"),
        ("/home/ada/local/runs", "xfs"),
        ("/home/ada/localhost", "nfs4"),
        ("/mnt/with space/runs", "cifs"),
        ("/twice/x", "tmpfs"),
        ("/var/lib", "ext4"),
        ("/", "ext4"),
    ],
)
def test_mount_type_is_that_of_the_deepest_and_last_mount(path: str, kind: str) -> None:
    """A name that only begins alike is another directory."""
    assert mount_type(path, TABLE) == kind


def test_data_directory_on_a_network_file_system_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a database is made there: one that was written over NFS may be damaged without a word."""
    table = tmp_path / "mountinfo"
    table.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:40 / {tmp_path} rw - nfs4 filer:/x rw\n")
    monkeypatch.setattr(mounts, "TABLE", str(table))
    data = tmp_path / "data"

    with pytest.raises(GradwatchError) as refused:
        SqliteStore.open(data)

    assert refused.value.code.slug == "data-dir-unusable"
    assert "type nfs4" in str(refused.value)
    assert "--data-dir" in str(refused.value)
    assert not (data / "gradwatch.db").exists()


def test_local_directories_and_unknown_systems_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the table cannot be read, as outside Linux, nothing is refused."""
    assert network_type(tmp_path) == ""
    monkeypatch.setattr(mounts, "TABLE", str(tmp_path / "absent"))
    assert network_type(tmp_path) == ""
    assert {"nfs", "nfs4", "cifs", "lustre", "fuse.sshfs"} <= NETWORK
