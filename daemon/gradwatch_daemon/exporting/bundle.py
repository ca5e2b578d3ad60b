"""A zip file that holds one run whole: its database, the rules it was judged by, and a page to look at.

`gradwatch replay BUNDLE` finds in it what was found live, on any machine with this version and its detectors.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "gradwatch-bundle"
VERSION = 1
MANIFEST = "manifest.json"
DATABASE = "gradwatch.db"

_STAMP = (1980, 1, 1, 0, 0, 0)
"""Of every file inside, the earliest that zip knows: equal contents make equal bundles."""

_COPY_BYTES = 1 << 20


def write_bundle(target: Path, database: Path, texts: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """Write a bundle of the database, of `texts` by file name, and of what `about` says; each file with its SHA-256.

    Raises:
        OSError: it cannot be written.
    """
    files = {DATABASE: _digest(database), **{name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}}
    manifest = {"format": FORMAT, "version": VERSION, **about, "sha256": files}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, text in {MANIFEST: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", **texts}.items():
            archive.writestr(_named(name), text)
        with open(database, "rb") as source, archive.open(_named(DATABASE), "w", force_zip64=True) as inside:
            while part := source.read(_COPY_BYTES):
                inside.write(part)


def _named(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _STAMP)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    return info


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_COPY_BYTES):
            digest.update(part)
    return digest.hexdigest()


def is_bundle(path: Path) -> bool:
    """Whether this is a zip file, and so a bundle if it is anything of ours."""
    return path.is_file() and zipfile.is_zipfile(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """What a bundle says of itself.

    Raises:
        GradwatchError: `recording-unreadable`: no bundle, of a later version, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(MANIFEST))
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, "a bundle of `gradwatch export`", str(error)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _unreadable(path, "a bundle of `gradwatch export`", "another zip file")
    if manifest.get("version") != VERSION:
        raise _unreadable(path, f"version {VERSION}", f"version {manifest.get('version')}", "Upgrade gradwatch.")
    return manifest


def unpack_database(path: Path, target: Path) -> None:
    """Write the database of a bundle into the new file `target`, and check that it is the one that was put in.

    Raises:
        GradwatchError: `recording-unreadable`: damaged.
    """
    sums = read_manifest(path).get("sha256")
    expected = sums.get(DATABASE) if isinstance(sums, dict) else None
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive, archive.open(DATABASE) as inside, open(target, "xb") as out:
            while part := inside.read(_COPY_BYTES):
                digest.update(part)
                out.write(part)
    except (OSError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, "an undamaged bundle", str(error)) from error
    if digest.hexdigest() != expected:
        raise _unreadable(path, f"{DATABASE} as it was exported", "another one", "Export it again.")


def _unreadable(path: Path, expected: str, got: str, next_step: str = "") -> GradwatchError:
    return GradwatchError("recording-unreadable", where=str(path), expected=expected, got=got, next_step=next_step)
