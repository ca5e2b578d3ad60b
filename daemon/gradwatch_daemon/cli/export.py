"""`gradwatch export`: what was recorded, as files of your own, from a store at hand or from the daemon of GRADWATCH_URL."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.anomaly_id import beginning
from gradwatch_daemon.cli.client import connect, local_daemon, segment
from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError
from gradwatch_daemon.cli.output import lost_words
from gradwatch_daemon.cli.replay import data_dir_of
from gradwatch_daemon.cli.serve import daemon_extra

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from typing import IO

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.output import Output
    from gradwatch_daemon.config import Config

SUFFIXES = {".html": "html", ".htm": "html", ".zip": "zip", ".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl"}
TEXTS = ("csv", "jsonl")

FETCH_TIMEOUT_S = 180.0
"""A daemon gives up an export after two minutes."""


def run(args: Namespace, output: Output) -> int:
    """Write one file from the store; a daemon may run on it. Where GRADWATCH_URL names the daemon, it writes the file and sends
    it, since its store may be anywhere.

    Raises:
        GradwatchError: `run-not-found`; `recording-unreadable` where there is no store; `export-failed`, `backup-failed`.
        CommandError: 2 for arguments that do not go together, or where the library of a format is not installed.
    """
    _check(args)
    if args.what is not None and os.environ.get("GRADWATCH_URL") and args.data_dir is None:
        return _fetch(args, output)
    with daemon_extra():
        from gradwatch_daemon.config import load_config
    config = load_config({"config": args.config, "data_dir": args.data_dir}, os.environ, Path.cwd())
    source = data_dir_of(config, local_daemon(os.environ, os.getuid()))
    return _export(args, output, config, source) if args.what is not None else _back_up(args, output, source)


def _check(args: Namespace) -> None:
    if (args.what is None) == (args.backup is None):
        raise CommandError(
            "Export one run or anomaly, or with --backup FILE the whole store.",
            next_step="See `gradwatch export --help`.",
            exit_code=EXIT_USAGE,
        )
    if args.backup is not None and (args.format or args.out):
        raise CommandError("--backup is a format of its own.", next_step="Leave --format and --out out.", exit_code=EXIT_USAGE)
    if args.backup is not None and os.environ.get("GRADWATCH_URL") and args.data_dir is None:
        raise CommandError(
            "--backup copies a store on this machine, and GRADWATCH_URL names a daemon whose store may be elsewhere.",
            next_step="Run it where that daemon runs, without GRADWATCH_URL, or name the store with --data-dir DIR.",
            exit_code=EXIT_USAGE,
        )
    if args.first is not None and args.last is not None and args.first > args.last:
        raise CommandError(f"--from {args.first} is after --to {args.last}.", exit_code=EXIT_USAGE)


def _back_up(args: Namespace, output: Output, source: Path) -> int:
    from gradwatch_daemon.offline import back_up_store

    target = Path(args.backup).absolute()
    size = back_up_store(source, target)
    if output.as_json:
        output.document({"file": str(target), "bytes": size, "source": str(source)})
    else:
        output.line(str(target))
        output.note(f"{size / 1e6:.1f} MB, everything committed up to now. Read it with `gradwatch replay {target} --run RUN`.")
    return 0


def _fetch(args: Namespace, output: Output) -> int:
    """Let the daemon write it.

    Raises:
        CommandError: what the daemon refuses, or 2 for a rules file, of which it has its own.
        GradwatchError: `export-failed` where the file cannot be written here.
    """
    kind = _format(args)
    _check_window(args, kind)
    if args.config is not None:
        raise CommandError(
            "The daemon of GRADWATCH_URL judges by its own rules.", next_step="Leave --config out.", exit_code=EXIT_USAGE
        )
    client = connect(os.environ)
    query = {"format": kind, "from_": args.first, "to": args.last}
    if args.out == "-":
        about = _first_found(client, args.what, sys.stdout.buffer, query)
        output.note(f"{about['rows']} rows.")
        return 0
    target = Path(args.out or f"{args.what}.{kind}").absolute()
    try:
        with open(target, "xb") as file:
            try:
                about = _first_found(client, args.what, file, query)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise GradwatchError(
            "export-failed",
            where=str(target),
            expected="a file that does not exist yet, and room to write it",
            got=error.strerror or str(error),
        ) from error
    _say({"file": str(target), **about}, target, output)
    return 0


def _first_found(client: Client, what: str, file: IO[bytes], query: dict[str, object]) -> dict[str, Any]:
    """Of a run, or of an anomaly where no run has that name; what the daemon says of the file."""
    paths = ("/api/v1/runs/{}/export", "/api/v1/anomalies/{}/export")
    for place, path in enumerate(paths):
        try:
            headers = client.download(path.format(segment(what)), file, FETCH_TIMEOUT_S, **query)
        except CommandError as refused:
            if place == 0 and refused.code == "run-not-found":
                unknown = refused
                continue
            if not place or refused.code != "anomaly-not-found":
                raise
            whole = beginning(client, what)
            if whole is None:
                raise unknown from None
            headers = client.download(paths[1].format(segment(whole)), file, FETCH_TIMEOUT_S, **query)
        about: dict[str, Any] = json.loads(headers["gradwatch-export"])
        return about
    raise AssertionError("one of the two answers or raises")


def _export(args: Namespace, output: Output, config: Config, source: Path) -> int:
    kind = _format(args)
    _check_window(args, kind)
    with daemon_extra():
        from gradwatch_daemon.exporter import Wanted, export_place, print_table
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    wanted = Wanted(args.what, kind, config.profile, config.thresholds, made, args.first, args.last)
    if args.out == "-":
        rows = print_table(source, wanted, sys.stdout)
        output.note(f"{rows} rows.")
        return 0
    target = Path(args.out or f"{args.what}.{kind}").absolute()
    with _format_extra():
        document = export_place(source, wanted, target)
    _say(document, target, output)
    return 0


def _say(document: dict[str, Any], target: Path, output: Output) -> None:
    """What was written."""
    if output.as_json:
        output.document(document)
        return
    output.line(str(target))
    for note in document["notes"]:
        output.note(f"Note: {note}.")
    use = {"html": "Open it in a browser; it needs no network.", "zip": f"Replay it with `gradwatch replay {target}`."}
    said = f"{document['rows']} rows, {document['bytes'] / 1e3:.0f} kB. {use.get(document['format'], '')}"
    output.note(said.rstrip())
    if lost := lost_words(document["coverage"]):
        output.note(lost)


def _check_window(args: Namespace, kind: str) -> None:
    if kind == "zip" and (args.first is not None or args.last is not None):
        raise CommandError(
            "A bundle holds the whole run, or it would not replay to the same.",
            next_step="Leave --from and --to out, or choose another format.",
            exit_code=EXIT_USAGE,
        )


def _format(args: Namespace) -> str:
    """What was asked for, else what the name of the file says, else a page."""
    if args.out == "-" and args.format not in TEXTS:
        raise CommandError(
            "Only csv and jsonl go to standard output.", next_step="Add --format jsonl, or name a file.", exit_code=EXIT_USAGE
        )
    return str(args.format or SUFFIXES.get(Path(args.out or "").suffix.lower(), "html"))


@contextmanager
def _format_extra() -> Iterator[None]:
    """Around what needs the library of a format.

    Raises:
        CommandError: 2 when it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise CommandError(
            "Parquet files need pyarrow.",
            why=f"{error.name} is not installed; csv and jsonl hold the same and need nothing.",
            next_step='Install it from the clone of gradwatch: pip install -e ".[parquet]"',
            exit_code=EXIT_USAGE,
        ) from error
