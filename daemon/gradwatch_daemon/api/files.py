"""A file as an answer."""

import os
from typing import BinaryIO
from urllib.parse import quote

import anyio.to_thread
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PART_BYTES = 256 * 1024
"""Read and sent at once."""


class FileAnswer(Response):
    """The bytes of an open file, closed at the end. It is open before the answer begins: what is deleted meanwhile still
    arrives whole."""

    media_type = "application/octet-stream"

    def __init__(self, file: BinaryIO, name: str, *, done: BackgroundTask | None = None) -> None:
        self.status_code, self.background, self.body = 200, done, b""
        self._file = file
        given = quote(name, safe="")
        shown = f'filename="{name}"' if given == name else f"filename*=utf-8''{given}"
        size = os.fstat(file.fileno()).st_size
        self.init_headers({"content-length": str(size), "content-disposition": f"attachment; {shown}"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, a part at a time."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while part := await anyio.to_thread.run_sync(self._file.read, PART_BYTES):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._file.close()
            if self.background is not None:
                await self.background()
