"""`gradwatch serve`: read the configuration and run the daemon in this process."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from gradwatch_daemon.cli.output import Output

EXTRA = frozenset({"fastapi", "numpy", "pydantic", "starlette", "tomli", "uvicorn"})
"""Top-level modules of the daemon extra."""


def run(args: Namespace, output: Output) -> int:
    """Run until SIGTERM or Ctrl-C; what cannot be used (a key, an address, a directory) is refused before anything starts.

    Raises:
        GradwatchError: what the configuration or the daemon refuses to start with.
        CommandError: 2 when the daemon extra is not installed.
    """
    with daemon_extra():
        from gradwatch_daemon.app import run_daemon
        from gradwatch_daemon.config import load_config
    return run_daemon(load_config(flags(args), os.environ, Path.cwd()))


@contextmanager
def daemon_extra() -> Iterator[None]:
    """Around the imports of what runs in this process.

    Raises:
        CommandError: 2 when the daemon extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise CommandError(
            "The daemon's own requirements are not installed.",
            why=f"{error.name} is missing: this environment has the agent only.",
            next_step='Install them from the clone of gradwatch: pip install -e ".[daemon]"',
            exit_code=EXIT_USAGE,
        ) from error


def flags(args: Namespace) -> dict[str, object]:
    """The flags that were given, by the keys of the configuration; None for those that were not."""
    return {
        "config": args.config,
        "http": args.http,
        "ingest": args.ingest,
        "data_dir": args.data_dir,
        "profile": args.profile,
        "keep_days": args.keep_days,
        "keep_bytes": args.keep_bytes,
        "ack": args.ack,
        "allowed_hosts": args.allowed_host,
        "tls_cert": args.tls_cert,
        "tls_key": args.tls_key,
        "insecure_http_beyond_loopback": args.insecure_http_beyond_loopback,
    }
