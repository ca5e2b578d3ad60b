"""The arguments of verbs on what is stored, or shall be: replay, import, export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.cli.arguments import Parser, add_verb, positive

if TYPE_CHECKING:
    import argparse


def add_past(verbs: argparse._SubParsersAction[Parser]) -> None:
    """Replay and import."""
    verb = add_verb(verbs, "replay", "run stored updates through detection again; a gate for scripts")
    verb.add_argument("what", metavar="RUN|FILE", help="a run; or, with a / or as a file, a data directory, a bundle or a log")
    verb.add_argument("--run", metavar="RUN", help="which run of FILE, where it holds several")
    verb.add_argument("--profile", help="rules to replay with: default or classic (those of the configuration)")
    verb.add_argument(
        "--set", metavar="KIND.NAME=NUMBER", action="append", default=[], help="another threshold; may be repeated"
    )
    verb.add_argument("--diff", metavar="Q", help="also say what differs from Q: live, default or classic")
    verb.add_argument("--from", dest="first", type=int, metavar="UPDATE", help="first update")
    verb.add_argument("--to", dest="last", type=int, metavar="UPDATE", help="last update")
    verb.add_argument(
        "--gate",
        choices=("info", "warning", "critical"),
        default="warning",
        help="exit 10 for a finding at or above this (warning), 11 when detectors could not all see, else 0",
    )
    verb.add_argument("--allow-blind", action="store_true", help="blind or learning detectors are not inconclusive")
    verb.add_argument("--data-dir", metavar="DIR", help="where RUN is kept (where the running daemon keeps it)")
    verb.add_argument("--config", metavar="FILE", help="TOML file with profile and thresholds, as of `gradwatch serve`")
    _add_import(verbs)


def _add_import(verbs: argparse._SubParsersAction[Parser]) -> None:
    verb = add_verb(verbs, "import", "store a log of TensorBoard or Stable-Baselines3, or a spool, and judge it")
    verb.add_argument("path", metavar="PATH", help="an event file, a progress.csv, a directory with one of them, or a spool")
    verb.add_argument("--run", metavar="RUN", help="what to call it (the name of its directory); of a spool, this run only")
    verb.add_argument("--delete", action="store_true", help="of a spool, what is stored (the next attempt would do the same)")
    verb.add_argument(
        "--map",
        metavar="KEY=SIGNAL",
        action="append",
        default=[],
        help="read a key as this signal, on your word; may be repeated",
    )
    verb.add_argument(
        "--updates-total", type=positive, metavar="N", help="how long the run was planned, for rules that depend on progress"
    )
    verb.add_argument("--profile", help="rules to detect with where no daemon runs: default or classic")
    verb.add_argument("--data-dir", metavar="DIR", help="where to store it (where the running daemon stores)")
    verb.add_argument("--config", metavar="FILE", help="TOML file, as of `gradwatch serve`")


def add_export(verbs: argparse._SubParsersAction[Parser]) -> None:
    """Export."""
    verb = add_verb(verbs, "export", "write a run or an anomaly into a file, or the whole store, while the daemon writes on")
    verb.add_argument("what", nargs="?", metavar="RUN|ANOMALY", help="a run, or the id of an anomaly")
    verb.add_argument(
        "--format",
        choices=("html", "zip", "parquet", "csv", "jsonl"),
        help="a page for people, a bundle that replays, or a table of the stored rows (by the name of FILE, else html)",
    )
    verb.add_argument("--out", metavar="FILE", help="the new file; - is standard output, for csv and jsonl (RUN.FORMAT)")
    verb.add_argument("--from", dest="first", type=int, metavar="UPDATE", help="first update of tables and plots")
    verb.add_argument("--to", dest="last", type=int, metavar="UPDATE", help="last update of tables and plots")
    verb.add_argument("--backup", metavar="FILE", help="the whole store into this new file")
    verb.add_argument("--data-dir", metavar="DIR", help="which store (that of the running daemon)")
    verb.add_argument("--config", metavar="FILE", help="TOML file with the rules, as of `gradwatch serve`")
