"""The only wiring: builds every part, starts them in order, stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import shutil
import signal
import sqlite3
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import uvicorn

from gradwatch_contracts.connection import Connection
from gradwatch_daemon import __version__
from gradwatch_daemon.api.access import TokenBook
from gradwatch_daemon.api.app import create_api
from gradwatch_daemon.api.context import ActionInfo, ApiContext, BrokenDetector, DaemonHealth
from gradwatch_daemon.api.hub import Hub
from gradwatch_daemon.audit import AuditFile
from gradwatch_daemon.catalogue import describe
from gradwatch_daemon.config import check_kinds, is_loopback
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.detect.extensions import load_rules
from gradwatch_daemon.encryption import Encryption
from gradwatch_daemon.exporting.apart import Exporter
from gradwatch_daemon.ingest.socket import IngestSocket
from gradwatch_daemon.listen import bind_http, check_certificate, host_to_open, split_address
from gradwatch_daemon.notify.notifier import Notifier
from gradwatch_daemon.pipeline.pipeline import Pipeline
from gradwatch_daemon.places import (
    SECRET_FILE,
    TOKENS_FILE,
    DirectoryLock,
    keep_secret,
    load_tokens,
    private_directory,
    remove_connection,
    save_entries,
    token_path,
    write_connection,
)
from gradwatch_daemon.records import Counters
from gradwatch_daemon.replay.apart import Replayer
from gradwatch_daemon.responses import actions_of, policy_of
from gradwatch_daemon.store.artifacts import ArtifactFiles
from gradwatch_daemon.store.protocol import Keep
from gradwatch_daemon.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

    from gradwatch_daemon.config import Config
    from gradwatch_daemon.detect.catalogue import Profile
    from gradwatch_daemon.records import Published
    from gradwatch_daemon.records.notices import Outcome

LOG = logging.getLogger("gradwatch.daemon")

SWITCH_S = 2e-4
"""How long a thread may hold the interpreter while another wants it. One request hands over four times (event loop, worker,
SQLite, event loop); with Python's 5 ms that alone is up to 20 ms beside a busy pipeline. Measured: docs/budgets.md."""

SHUTDOWN_S = 3
"""How long open HTTP requests may finish after SIGTERM."""


DAY_NS = 86_400 * 10**9


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would raise the signal again and end us before the store is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `Daemon`."""
        yield


def _http(api: FastAPI, config: Config) -> uvicorn.Config:
    """How the API is served."""
    return uvicorn.Config(
        api,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
        ws="none",  # 2 MB of modules for what is not offered
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
    )


class Daemon:
    """One daemon. Construction takes every resource and raises `GradwatchError` when one is not to be had."""

    def __init__(self, config: Config) -> None:
        profile = load_rules(config.profile, config.thresholds)
        check_kinds(config, profile.rules)
        with contextlib.ExitStack() as undo:
            self._runtime_dir = private_directory(Path(config.runtime_dir), "GRADWATCH_RUNTIME_DIR", others=0o077)
            self._data_dir = data_dir = private_directory(Path(config.data_dir), "--data-dir")
            lock = DirectoryLock(self._runtime_dir, "GRADWATCH_RUNTIME_DIR")
            undo.callback(lock.release)
            remove_connection(self._runtime_dir)  # of a daemon that was killed: with our lock it would be believed
            self._store = SqliteStore.open(data_dir, synced=config.ack == "synced")
            undo.callback(self._store.close)
            host, port = split_address(config.http, "--http")
            self._listener = bind_http(host, port)
            self.readable = config.insecure_http_beyond_loopback and config.tls_cert is None and not is_loopback(host)
            check_certificate(config.tls_cert, config.tls_key)
            undo.callback(self._listener.close)
            over_tcp = config.ingest.startswith("tcp://")
            endpoint = config.ingest if over_tcp else self._ipc(config.ingest)
            # Kept over restarts, or the agents of running trainers would be refused.
            secret = keep_secret(data_dir / SECRET_FILE) if over_tcp and not config.encrypted else ""
            encryption = Encryption(data_dir) if config.encrypted else None
            self._socket = IngestSocket(endpoint, encryption.curve if encryption else None)
            undo.callback(self._socket.close)
            ingest = encryption.local_endpoint(self._socket.endpoint) if encryption else self._socket.endpoint
            self._hub = Hub(secrets.token_hex(4))
            self._counters = Counters()
            files = ArtifactFiles(data_dir)
            self._notifier = Notifier(config.notify, self._report)
            self.url = _url("https" if config.tls_cert else "http", host, self._listener.getsockname()[1])
            self._notifier.url = config.public_url or self.url
            self._pipeline = self._make_pipeline(config, profile, secret, files)
            reader = self._store.reader()
            undo.callback(reader.close)
            tokens_file = data_dir / TOKENS_FILE
            book = TokenBook(keep_secret(token_path(data_dir)), load_tokens(tokens_file), partial(save_entries, tokens_file))
            audit = AuditFile(data_dir)
            undo.callback(audit.close)
            self.connection = Connection(ingest, self.url, secret, str(token_path(data_dir)), os.getpid())
            self._api = create_api(
                ApiContext(
                    snapshots=lambda: self._pipeline.snapshots,
                    reader=reader,
                    artifact=files.find,
                    submit=self._pipeline.mailbox.submit,
                    hub=self._hub,
                    book=book,
                    audit=audit,
                    keyring=encryption.keyring(self._socket.endpoint) if encryption else None,
                    allowed_hosts=(*config.allowed_hosts, host, *_public_host(config)),
                    public_url=config.public_url,
                    ready=self._not_ready,
                    health=self._health,
                    catalogue=describe(profile),
                    version=__version__,
                    profile=config.profile,
                    broken=_not_there(profile),
                    actions=[ActionInfo(one.verb, one.when, one.enabled) for one in actions_of(config)],
                    replay=Replayer(data_dir, config.profile, config.thresholds),
                    export=Exporter(data_dir, config.profile, config.thresholds),
                    notifier=self._notifier,
                )
            )
            self._undo = undo.pop_all()
        self._started_ns = time.time_ns()
        self._ack = config.ack
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run_pipeline, name="gradwatch-pipeline", daemon=True)
        self._server = _Server(_http(self._api, config))

    def _make_pipeline(self, config: Config, profile: Profile, secret: str, files: ArtifactFiles) -> Pipeline:
        return Pipeline(
            self._socket,
            self._store,
            Engine(profile),
            self._counters,
            self._publish,
            secret=secret,
            files=files,
            policy=policy_of(config),
            actions=actions_of(config),
            notifier=self._notifier,
            keep=_keep(config),
        )

    @property
    def ingest(self) -> str:
        """Where agents connect, without any key."""
        return self._socket.endpoint

    def dashboard(self) -> str:
        """A new address that opens the dashboard once, signed in as the owner."""
        state = self._api.state
        code, _ = state.sessions.invite(state.context.book.owner, time.time_ns())
        return f"{self.url}/#code={code}"

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or the end of the pipeline; returns the exit code."""
        try:
            asyncio.run(self._serve())
        finally:
            remove_connection(self._runtime_dir)
            self._notifier.stop()
            self._pipeline.stop()
            if self._thread.is_alive():
                self._thread.join()
            self._undo.close()
        return 1 if self._pipeline.failed else 0

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._leave)
        self._thread.start()
        self._notifier.start()
        write_connection(self._runtime_dir, self.connection)
        await self._server.serve(sockets=[self._listener])

    def _leave(self) -> None:
        """Streams first: a live one would hold the server open for its whole grace."""
        self._hub.close()
        self._server.should_exit = True

    def _run_pipeline(self) -> None:
        try:
            self._pipeline.run()
        finally:
            loop = self._loop
            if loop is not None and not loop.is_closed():
                with contextlib.suppress(RuntimeError):  # the loop may close between the check and the call
                    loop.call_soon_threadsafe(self._leave)

    def _publish(self, batch: list[Published]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # as above; nobody listens any more
                loop.call_soon_threadsafe(self._hub.publish, batch)

    def _report(self, outcome: Outcome) -> None:
        """From the thread of a channel. Refused while we stop: then the next daemon delivers again."""
        self._pipeline.mailbox.submit(outcome)

    def _not_ready(self) -> list[str]:
        return [self._pipeline.trouble] if self._pipeline.trouble else []

    def _health(self) -> DaemonHealth:
        counters, disk = self._counters, shutil.disk_usage(self._data_dir)
        refused = counters.refused.copy()  # the pipeline thread adds keys; a copy is one step under the GIL
        if self._socket.strangers:
            refused["key-unknown"] = self._socket.strangers
        if self._socket.dropped:
            refused["window-exceeded"] = self._socket.dropped
        return DaemonHealth(
            pid=os.getpid(),
            started_ns=self._started_ns,
            now_ns=time.time_ns(),
            sqlite=sqlite3.sqlite_version,
            data_dir=str(self._data_dir),
            data_free_bytes=disk.free,
            data_size_bytes=disk.total,
            frames=counters.frames,
            rows=counters.rows,
            refused=refused,
            quarantines=counters.quarantines,
            commits=counters.commits,
            commit_failures=counters.commit_failures,
            ack=self._ack,
        )

    def _ipc(self, ingest: str) -> str:
        """Permissions are what keeps others out of a socket without a secret, so its directory must be private."""
        if ingest == "auto":
            return f"ipc://{self._runtime_dir}/ingest.ipc"
        private_directory(Path(ingest.removeprefix("ipc://")).parent, "--ingest", others=0o077)
        return ingest


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{host_to_open(host)}:{port}"


def _public_host(config: Config) -> tuple[str, ...]:
    """The host that links lead to is one to be asked under."""
    host = urlsplit(config.public_url).hostname
    return (host,) if host else ()


def _keep(config: Config) -> Keep:
    """How long rows stay as they came."""
    return Keep(None if config.keep_days is None else int(config.keep_days * DAY_NS), config.keep_bytes)


def _not_there(profile: Profile) -> list[BrokenDetector]:
    """Detectors of other packages that could not be loaded, told to the log too."""
    for one in profile.extensions.broken:
        LOG.error("detector %s of %s is not there: %s", one.name, one.origin, one.reason)
    return [BrokenDetector(one.name, one.origin, one.reason) for one in profile.extensions.broken]


def run_daemon(config: Config) -> int:
    """Build and run a daemon; `gradwatch serve` is this. Returns the exit code.

    Raises:
        GradwatchError: when an address, a directory or the configuration cannot be used.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    daemon = Daemon(config)
    sys.setswitchinterval(SWITCH_S)
    # What was imported and built stays for good: looked through by each full collection, it held everything up for 97 ms.
    gc.collect()
    gc.freeze()
    if daemon.readable:
        LOG.warning("HTTP listens beyond this machine and is not encrypted: whoever can read the traffic has the token")
    print(f"gradwatch {__version__}: HTTP {daemon.url}, ingest {daemon.ingest}", file=sys.stderr)
    print(f"dashboard {daemon.dashboard()} (opens once, within 15 minutes; another: `gradwatch token link`)", file=sys.stderr)
    print(f"data in {config.data_dir}; token: `gradwatch token`; stop with Ctrl-C", file=sys.stderr, flush=True)
    return daemon.run()
