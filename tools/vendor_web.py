"""Fetch the libraries of the web page from npm into web/vendor, and axe-core for its tests: `python tools/vendor_web.py`.

There is no build step. A file is taken as its package ships it, with three mechanical changes: a bare import becomes a
relative one (an import map would have to stand in the page, which its content security policy forbids), a script that only
sets a global exports it, and the pointer to a source map that we do not ship is cut. `vendor.lock` holds the hash of the
package and of each file, before and after; a test compares. Needs npm, and asks the registry npm is configured to ask.

With `--check` nothing is written: exit 1 when what npm has for the locked versions is not what lies here.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WEB = ROOT / "daemon/gradwatch_daemon/web/vendor"
AXE = ROOT / "tests/data/axe"

IMPORTS = {"preact": "./preact.js", "preact/hooks": "./hooks.js", "@preact/signals-core": "./signals-core.js"}
BARE = re.compile(rf'((?:from|import)\s*)(["\'])({"|".join(IMPORTS)})\2')
SOURCE_MAP = re.compile(r"\n?//# sourceMappingURL=\S+\s*$")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A package at one version; `files` is path in the package → file here; `exports` a global to export at the end of one."""

    name: str
    version: str
    files: dict[str, str]
    place: Path = WEB
    exports: str = ""


PACKAGES = (
    Wanted("preact", "11.2.0", {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js"}),
    Wanted("htm", "3.1.1", {"dist/htm.module.js": "htm.js"}),
    Wanted("@preact/signals-core", "1.14.5", {"dist/signals-core.module.js": "signals-core.js"}),
    Wanted("@preact/signals", "2.11.4", {"dist/signals.module.js": "signals.js"}),
    Wanted("uplot", "1.6.32", {"dist/uPlot.iife.min.js": "uplot.js", "dist/uPlot.min.css": "uplot.css"}, exports="uPlot"),
    Wanted("axe-core", "4.14.1", {"axe.min.js": "axe.js"}, place=AXE),
)


def fetch(wanted: Wanted) -> bytes:
    """The package as npm serves it."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{wanted.name}@{wanted.version}"]
        name = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
        return (Path(folder) / name).read_bytes()


def adapt(text: str, exports: str) -> str:
    """The three changes this module's first lines name."""
    text = SOURCE_MAP.sub("\n", text)
    text = BARE.sub(lambda found: f'{found[1]}"{IMPORTS[found[3]]}"', text)
    return f"{text.rstrip()}\nexport default {exports};\n" if exports else text


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def unpack(wanted: Wanted, package: bytes) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """The entry of the lock file, the files to write by name, and the licence's text."""
    files: dict[str, bytes] = {}
    entries = []
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:

        def read(path: str) -> bytes:
            member = archive.extractfile(f"package/{path}")
            if member is None:
                raise FileNotFoundError(path)
            return member.read()

        for source, name in wanted.files.items():
            upstream = read(source)
            exports = wanted.exports if name.endswith(".js") else ""
            files[name] = adapt(upstream.decode(), exports).encode() if name.endswith(".js") else upstream
            entries.append({"from": source, "to": name, "sha256_upstream": sha256(upstream), "sha256": sha256(files[name])})
        about = json.loads(read("package.json"))
        licence = read("LICENSE").decode().strip()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()
    entry = {
        "name": wanted.name,
        "version": wanted.version,
        "licence": about["license"],
        "integrity": integrity,
        "files": entries,
    }
    return entry, files, licence


def main() -> int:
    """Write, or compare with what is there."""
    places: dict[Path, dict[str, bytes]] = {}
    locks: dict[Path, list[dict[str, Any]]] = {}
    licences: dict[Path, list[str]] = {}
    for wanted in PACKAGES:
        entry, files, licence = unpack(wanted, fetch(wanted))
        places.setdefault(wanted.place, {}).update(files)
        locks.setdefault(wanted.place, []).append(entry)
        licences.setdefault(wanted.place, []).append(f"{wanted.name} {wanted.version} ({entry['licence']})\n\n{licence}\n")
    for place, files in places.items():
        files["vendor.lock"] = (json.dumps({"packages": locks[place]}, indent=1) + "\n").encode()
        files["LICENSES.txt"] = ("\n" + "=" * 100 + "\n\n").join(licences[place]).encode()
    if "--check" in sys.argv[1:]:
        different = [
            str((place / name).relative_to(ROOT))
            for place, files in places.items()
            for name, data in files.items()
            if not (place / name).is_file() or (place / name).read_bytes() != data
        ]
        print("\n".join(different) or "as npm has it")
        return 1 if different else 0
    for place, files in places.items():
        place.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (place / name).write_bytes(data)
            print(f"{(place / name).relative_to(ROOT)} {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
