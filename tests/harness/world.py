"""A pipeline over a real store, a socket of one list and a clock that stands still: what a daemon does, frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.pipeline.notifying import NOBODY
from gradwatch_daemon.pipeline.pipeline import KEEP_ALL, Pipeline
from gradwatch_daemon.pipeline.work import Now
from gradwatch_daemon.records import Counters, Published
from gradwatch_daemon.store.artifacts import ArtifactFiles
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.rows import FULL, T0_NS, RowMaker, hello

if TYPE_CHECKING:
    from pathlib import Path

    from gradwatch_daemon.store.protocol import Keep


class Socket:
    """What the pipeline says, by peer; it is given its frames by hand."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, m.Message]] = []
        self.gone: set[bytes] = set()

    def send(self, peer: bytes, frame: bytes) -> bool:
        if peer in self.gone:
            return False
        self.sent.append((peer, decode(frame)))
        return True

    def wake(self) -> None:
        """Nobody sleeps here."""

    def of(self, kind: type, peer: bytes = b"p") -> list[m.Message]:
        return [message for to, message in self.sent if to == peer and isinstance(message, kind)]


class World:
    """A pipeline, its socket, its store, a clock that stands still, and one trainer on peer b"p"."""

    def __init__(self, home: Path, secret: str = "", profile: str = "default", keep: Keep = KEEP_ALL, **wired: object) -> None:
        self.wired = wired
        self.home, self.secret, self.keep = home, secret, keep
        self.now_s = 100.0
        self.profile = load_profile(profile)
        self.published: list[Published] = []
        self.rows = RowMaker()
        self.open()

    notifier = NOBODY

    def open(self) -> None:
        self.store = SqliteStore.open(self.home)
        self.reader = self.store.reader()
        self.socket = Socket()
        self.files = ArtifactFiles(self.home)
        self.pipeline = Pipeline(
            self.socket,  # type: ignore[arg-type]
            self.store,
            Engine(self.profile),
            Counters(),
            self.published.extend,
            secret=self.secret,
            files=self.files,
            **self.wired,  # type: ignore[arg-type]
            notifier=self.notifier,
            keep=self.keep,
            clock=lambda: Now(T0_NS + int(self.now_s * 1e9), self.now_s),
        )

    def close(self) -> None:
        self.reader.close()
        self.store.close()

    def restart(self) -> None:
        """Another process on the same directory."""
        self.close()
        self.open()

    def tick(self, *messages: m.Message, peer: bytes = b"p") -> None:
        self.pipeline.tick([(peer, encode(message)) for message in messages])

    def greet(self, **changed: object) -> None:
        self.tick(hello(**changed), peer=b"p")  # type: ignore[arg-type]
        self.tick(m.SchemaMessage(FULL.columns))

    def ask(self, request: object) -> object:
        answer = self.pipeline.mailbox.submit(request)  # type: ignore[arg-type]
        self.tick()
        return answer.result(0)

    def view(self, run: str = "ant-ppo") -> object:
        return self.pipeline.snapshots[run]

    def stored(self, id_: str) -> object:
        return self.store.escalation("ant-ppo", id_)
