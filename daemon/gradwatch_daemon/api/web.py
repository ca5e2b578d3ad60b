"""The dashboard's own files: one page, its modules and styles. They hold no data, so they need no token, only a Host of ours.

Everything is read and packed once. The page is asked for anew each time; what it loads lies under the hash of all of it, so a
browser keeps it for good and never mixes two versions.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from gradwatch_daemon.api.problems import ApiError

ROOT = Path(__file__).parents[1] / "web"
PAGE = "index.html"
THEME = "theme.js"
"""The one script that is no module: it runs before the first paint."""
PATHS = ("/", "/web/")
"""The page, and the folder of what it loads."""

MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".lock": "application/json",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing inline and nothing from elsewhere: a name in a run's data can never become a script."""

FOR_GOOD = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class WebFile:
    """A file as it is sent: plain, and packed where that is smaller."""

    media: str
    plain: bytes
    packed: bytes


@dataclass(frozen=True, slots=True)
class WebFiles:
    """All files by their path below web/, and the hash they lie under."""

    digest: str
    files: dict[str, WebFile]

    @classmethod
    def read(cls, root: Path = ROOT) -> "WebFiles":
        """Read the folder. The page's `web/@/` becomes `web/HASH/`, and all modules are named in it, to be loaded at once."""
        found = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        hashed = hashlib.sha256()
        for name, data in found.items():
            hashed.update(f"{name} {len(data)}\n".encode())
            hashed.update(data)
        digest = hashed.hexdigest()[:12]
        modules = (name for name in found if name.endswith(".js") and name != THEME)
        preload = "\n".join(f'    <link rel="modulepreload" href="web/@/{name}">' for name in modules)
        text = found[PAGE].decode().replace("    <!-- preload -->", preload).replace("web/@/", f"web/{digest}/")
        found[PAGE] = text.encode()
        return cls(digest, {name: _pack(Path(name).suffix, data) for name, data in found.items() if Path(name).suffix in MEDIA})


@lru_cache(maxsize=1)
def shipped_files() -> WebFiles:
    """Those of this package; they do not change while it runs."""
    return WebFiles.read()


def _pack(suffix: str, data: bytes) -> WebFile:
    return WebFile(MEDIA[suffix], data, gzip.compress(data, 9, mtime=0))


def is_web(method: str, path: str) -> bool:
    """Whether a request is for one of these files, which anybody may read."""
    return method in ("GET", "HEAD") and (path == PATHS[0] or path.startswith(PATHS[1]))


def _answer(request: Request, file: WebFile, keep: str) -> Response:
    packed = "gzip" in request.headers.get("accept-encoding", "") and len(file.packed) < len(file.plain)
    headers = {"Cache-Control": keep, "Vary": "Accept-Encoding", "Content-Security-Policy": POLICY, "Content-Type": file.media}
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(file.packed if packed else file.plain, headers=headers)


def _files(request: Request) -> WebFiles:
    files = request.app.state.web
    if not isinstance(files, WebFiles):
        raise TypeError("the application was not made by create_api")
    return files


@router.get(PATHS[0])
async def page(request: Request) -> Response:
    """The one page; which part of it is shown stands behind the # of its address."""
    return _answer(request, _files(request).files[PAGE], "no-cache")


@router.get(PATHS[1] + "{digest}/{path:path}")
async def asset(request: Request, digest: str, path: str) -> Response:
    """A module or style of the page. That of another version is not here: its page is stale."""
    files = _files(request)
    file = files.files.get(path)
    if file is None or digest != files.digest:
        raise ApiError(
            "route-not-found", where="path", expected=f"a file of the page, under web/{files.digest}/", got=path[:80]
        )
    return _answer(request, file, FOR_GOOD)
