"""Every verb and its arguments: what `--help` prints. `parser_control` and `parser_past` have a part of them each."""

from __future__ import annotations

import argparse

from gradwatch_contracts.launch import EVERY, PATCHES
from gradwatch_daemon.cli.arguments import Parser, add_verb, positive
from gradwatch_daemon.cli.parser_control import add_control
from gradwatch_daemon.cli.parser_past import add_export, add_past

RUN_STATES = ("live", "slow", "stalled", "lost", "crashed", "finished", "stopped", "imported")

EXIT_CODES = {
    0: "done",
    1: "bug",
    2: "usage",
    3: "not found",
    4: "daemon unreachable",
    5: "refused",
    10: "findings at or above the gate",
    11: "inconclusive",
}
"""What a script can tell apart. `gradwatch run` has those of its command."""

_EPILOG = f"""\
The daemon is found by GRADWATCH_URL and GRADWATCH_TOKEN, else by the connection.json that `gradwatch serve` wrote.

exit codes: {", ".join(f"{code} {meaning}" for code, meaning in list(EXIT_CODES.items())[:6])},
            {", ".join(f"{code} {meaning}" for code, meaning in list(EXIT_CODES.items())[6:])}
"""


def build_parser() -> Parser:
    """The whole command line. `args.verb` names the module of `gradwatch_daemon.cli` that runs it."""
    parser = Parser(
        prog="gradwatch",
        description="Telemetry beside deep-RL training: what went wrong, at which update, and a closer look at it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
    _add_service(verbs)
    _add_looking(verbs)
    add_control(verbs)
    add_past(verbs)
    add_export(verbs)
    return parser


def _add_service(verbs: argparse._SubParsersAction[Parser]) -> None:
    serve = verbs.add_parser(
        "serve", help="run the daemon", description="Run the daemon until SIGTERM or Ctrl-C.", allow_abbrev=False
    )
    serve.add_argument("--http", metavar="HOST:PORT", help="address of the HTTP API (127.0.0.1:9470)")
    serve.add_argument("--ingest", metavar="ENDPOINT", help="ZeroMQ endpoint of agents (ipc in the runtime directory)")
    serve.add_argument("--data-dir", metavar="DIR", help="where runs are kept")
    serve.add_argument("--profile", help="rules to detect with: default or classic")
    serve.add_argument("--keep-days", metavar="DAYS", help="thin rows that are older to summaries of 64 (never)")
    serve.add_argument("--keep-bytes", metavar="SIZE", help="thin the oldest rows beyond this, such as 20GB (no bound)")
    serve.add_argument(
        "--ack", metavar="WHEN", help="committed: what is acked survives kill -9; synced: a power loss too, and costs more"
    )
    serve.add_argument("--config", metavar="FILE", help="TOML file; flags win over GRADWATCH_*, which win over it")
    serve.add_argument(
        "--allowed-host", metavar="HOST", action="append", help="another name HTTP may be asked under; may be repeated"
    )
    serve.add_argument("--tls-cert", metavar="FILE", help="PEM certificate: the HTTP API is https")
    serve.add_argument("--tls-key", metavar="FILE", help="its PEM key")
    serve.add_argument(
        "--insecure-http-beyond-loopback",
        action="store_true",
        default=None,
        help="serve HTTP without TLS where others can read it, and the token in it",
    )
    # Everything behind `demo` goes to the demo itself, --help too.
    verbs.add_parser("demo", help="train, break the run on purpose, and watch it being found", add_help=False)
    _add_run(verbs)
    top = verbs.add_parser(
        "top",
        help="watch runs live in this terminal",
        description="Runs, their signals and anomalies, live; ? shows the keys.",
        allow_abbrev=False,
    )
    top.add_argument("run", nargs="?", metavar="RUN", help="begin with this run")
    top.add_argument("--once", action="store_true", help="print one picture and end; needs no Textual")
    top.add_argument("--ascii", action="store_true", help="no character beyond ASCII")
    top.add_argument("--readonly", action="store_true", help="look only: escalating and acknowledging are off")
    status = add_verb(verbs, "status", "show the daemon and one line for each live run")
    status.add_argument("run", nargs="?", metavar="RUN", help="show everything known of this run instead")
    status.add_argument("--all", action="store_true", help="also runs that are lost, finished or crashed")
    doctor = add_verb(verbs, "doctor", "look for the usual mistakes, and say what to do about each")
    doctor.add_argument("run", nargs="?", metavar="RUN", help="look at this run only")
    add_verb(verbs, "health", "ask whether the daemon is alive; for container health checks")
    add_verb(verbs, "version", "print the version of this command")
    config = add_verb(verbs, "config", "show the configuration that `gradwatch serve` would have here, or check it")
    config.add_argument("action", choices=("show", "check"), help="every key with its origin, or whether it is valid")
    config.add_argument("--config", metavar="FILE", help="TOML file (./gradwatch.toml if there is one)")
    completion = verbs.add_parser(
        "completion",
        help="print the completion script of a shell",
        description='Print the completion script of a shell, as for eval "$(gradwatch completion bash)".',
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "runs"), help="runs: the names of runs, for the scripts")


def _add_run(verbs: argparse._SubParsersAction[Parser]) -> None:
    run = verbs.add_parser(
        "run",
        help="run a training script as it is, and watch it",
        usage="gradwatch run [--run NAME] [--no-patch NAME] [--every N] [--no-spool] -- COMMAND ...",
        description="Become COMMAND, which is watched from outside its code: exit code and signals are its own.",
        epilog="what is looked into:\n" + "".join(f"  {name:<12}{what}\n" for name, what in PATCHES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument(
        "--run", metavar="NAME", help="the run's key (GRADWATCH_RUN_ID, else the name of the script and its --seed)"
    )
    run.add_argument(
        "--no-patch",
        metavar="NAME",
        action="append",
        choices=tuple(PATCHES),
        default=[],
        help="leave one alone; may be repeated",
    )
    run.add_argument(
        "--every", metavar="N", type=positive, default=EVERY, help=f"steps of an update if no global_step is logged ({EVERY})"
    )
    run.add_argument("--no-spool", action="store_true", help="keep nothing on the disk while no daemon takes it")


def _add_looking(verbs: argparse._SubParsersAction[Parser]) -> None:
    runs = add_verb(verbs, "runs", "list runs, or show everything about one")
    runs.add_argument("run", nargs="?", metavar="RUN", help="show everything known of this run")
    runs.add_argument("--state", help="only runs in this state", choices=RUN_STATES)
    signals = add_verb(verbs, "signals", "list the signals of a run with their last values")
    signals.add_argument("run", metavar="RUN")
    signals.add_argument("--attempt", type=int, metavar="N", help="the newest when not given")
    signals.add_argument("--rank", type=int, metavar="N", help="of one rank (all together)")
    series = add_verb(verbs, "series", "show one signal over updates")
    series.add_argument("run", metavar="RUN")
    series.add_argument("signal", metavar="SIGNAL")
    series.add_argument("--subject", default="", help="head, layer or key")
    series.add_argument("--from", dest="first", type=int, metavar="UPDATE", help="first update")
    series.add_argument("--to", dest="last", type=int, metavar="UPDATE", help="last update")
    series.add_argument("--points", type=int, metavar="N", default=200, help="at most; beyond it updates share a line (200)")
    series.add_argument("--attempt", type=int, metavar="N", help="the newest when not given")
    series.add_argument("--rank", type=int, metavar="N", help="of one rank (all together)")
    _add_anomalies(verbs)
    detectors = add_verb(verbs, "detectors", "list what the daemon looks for, with the thresholds in force")
    detectors.add_argument("kind", nargs="?", metavar="KIND", help="show everything about one")
    explain = add_verb(verbs, "explain", "say what a kind of anomaly means, or why one fired, and what to try")
    explain.add_argument("what", metavar="KIND|ID", help="a kind of `gradwatch detectors`, or the id of an anomaly")


def _add_anomalies(verbs: argparse._SubParsersAction[Parser]) -> None:
    severities = ("info", "warning", "critical")
    verb = add_verb(verbs, "anomalies", "list anomalies, newest first, or follow them as they happen")
    verb.add_argument("run", nargs="?", metavar="RUN")
    verb.add_argument("--follow", action="store_true", help="print what is there and then every change, until Ctrl-C")
    verb.add_argument("--severity", choices=severities, default="info", help="at or above (info)")
    verb.add_argument("--state", choices=("pending", "firing", "ended", "resolved"))
    verb.add_argument("--kind", metavar="KIND")
    verb.add_argument("--since", metavar="TIME", help="fired at or after, for example 2026-01-31T12:00:00Z")
    verb.add_argument("--limit", type=positive, metavar="N", default=50, help="at most (50)")
    verb.add_argument(
        "--exit-code",
        nargs="?",
        choices=severities,
        const="warning",
        metavar="SEVERITY",
        help="a gate for scripts: exit 10 when one fired at or above SEVERITY (warning), 11 when detectors could not all see",
    )
    verb.add_argument("--allow-blind", action="store_true", help="with --exit-code: blind detectors are not inconclusive")
