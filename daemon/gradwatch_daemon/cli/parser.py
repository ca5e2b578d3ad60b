"""Every verb and its arguments, in one place: what `--help` prints. Imports nothing but argparse."""

from __future__ import annotations

import argparse
from typing import NoReturn

from gradwatch_contracts.launch import EVERY, PATCHES
from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError

WAIT_DEFAULT_S = 60.0

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


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one sentence, the nearest word, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise the usage error that `main` prints."""
        from gradwatch_contracts.names import nearest  # difflib takes as long as the parser, and `--help` needs none

        hint = ""
        if "invalid choice: " in message:
            word, _, choices = message.partition("invalid choice: ")[2].partition(" (choose from ")
            known = [choice.strip().strip("'") for choice in choices.rstrip(")").split(",")]
            hint = nearest(word.strip("'"), known) or ""
        raise CommandError(
            f"{message[:1].lower()}{message[1:]}.",
            next_step=f"See `{self.prog} --help`.",
            exit_code=EXIT_USAGE,
            did_you_mean=hint,
        )


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
    _add_control(verbs)
    _add_past(verbs)
    _add_export(verbs)
    return parser


def _verb(verbs: argparse._SubParsersAction[Parser], name: str, summary: str) -> Parser:
    """A verb that takes `--json`. Abbreviated flags are refused: they would change meaning when a flag is added."""
    verb = verbs.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:] + ".", allow_abbrev=False)
    verb.add_argument("--json", action="store_true", help="print one JSON document, with the keys of the REST API")
    return verb


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
    status = _verb(verbs, "status", "show the daemon and one line for each live run")
    status.add_argument("run", nargs="?", metavar="RUN", help="show everything known of this run instead")
    status.add_argument("--all", action="store_true", help="also runs that are lost, finished or crashed")
    doctor = _verb(verbs, "doctor", "look for the usual mistakes, and say what to do about each")
    doctor.add_argument("run", nargs="?", metavar="RUN", help="look at this run only")
    _verb(verbs, "health", "ask whether the daemon is alive; for container health checks")
    _verb(verbs, "version", "print the version of this command")
    config = _verb(verbs, "config", "show the configuration that `gradwatch serve` would have here, or check it")
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
    run.add_argument("--run", metavar="NAME", help="key of the run (GRADWATCH_RUN_ID, else the name of the script)")
    run.add_argument(
        "--no-patch",
        metavar="NAME",
        action="append",
        choices=tuple(PATCHES),
        default=[],
        help="leave one alone; may be repeated",
    )
    run.add_argument(
        "--every", metavar="N", type=_positive, default=EVERY, help=f"steps of an update if no global_step is logged ({EVERY})"
    )
    run.add_argument("--no-spool", action="store_true", help="keep nothing on the disk while no daemon takes it")


def _add_looking(verbs: argparse._SubParsersAction[Parser]) -> None:
    runs = _verb(verbs, "runs", "list runs, or show everything about one")
    runs.add_argument("run", nargs="?", metavar="RUN", help="show everything known of this run")
    runs.add_argument("--state", help="only runs in this state", choices=RUN_STATES)
    signals = _verb(verbs, "signals", "list the signals of a run with their last values")
    signals.add_argument("run", metavar="RUN")
    signals.add_argument("--attempt", type=int, metavar="N", help="the newest when not given")
    signals.add_argument("--rank", type=int, metavar="N", help="of one rank (all together)")
    series = _verb(verbs, "series", "show one signal over updates")
    series.add_argument("run", metavar="RUN")
    series.add_argument("signal", metavar="SIGNAL")
    series.add_argument("--subject", default="", help="head, layer or key")
    series.add_argument("--from", dest="first", type=int, metavar="UPDATE", help="first update")
    series.add_argument("--to", dest="last", type=int, metavar="UPDATE", help="last update")
    series.add_argument("--points", type=int, metavar="N", default=200, help="at most; beyond it updates share a line (200)")
    series.add_argument("--attempt", type=int, metavar="N", help="the newest when not given")
    series.add_argument("--rank", type=int, metavar="N", help="of one rank (all together)")
    _add_anomalies(verbs)
    detectors = _verb(verbs, "detectors", "list what the daemon looks for, with the thresholds in force")
    detectors.add_argument("kind", nargs="?", metavar="KIND", help="show everything about one")
    explain = _verb(verbs, "explain", "say what a kind of anomaly means, or why one fired, and what to try")
    explain.add_argument("what", metavar="KIND|ID", help="a kind of `gradwatch detectors`, or the id of an anomaly")


def _add_anomalies(verbs: argparse._SubParsersAction[Parser]) -> None:
    severities = ("info", "warning", "critical")
    verb = _verb(verbs, "anomalies", "list anomalies, newest first, or follow them as they happen")
    verb.add_argument("run", nargs="?", metavar="RUN")
    verb.add_argument("--follow", action="store_true", help="print what is there and then every change, until Ctrl-C")
    verb.add_argument("--severity", choices=severities, default="info", help="at or above (info)")
    verb.add_argument("--state", choices=("pending", "firing", "resolved"))
    verb.add_argument("--kind", metavar="KIND")
    verb.add_argument("--since", metavar="TIME", help="fired at or after, for example 2026-01-31T12:00:00Z")
    verb.add_argument("--limit", type=_positive, metavar="N", default=50, help="at most (50)")
    verb.add_argument(
        "--exit-code",
        nargs="?",
        choices=severities,
        const="warning",
        metavar="SEVERITY",
        help="a gate for scripts: exit 10 when one fired at or above SEVERITY (warning), 11 when detectors could not all see",
    )
    verb.add_argument("--allow-blind", action="store_true", help="with --exit-code: blind detectors are not inconclusive")


def _add_control(verbs: argparse._SubParsersAction[Parser]) -> None:
    verb = _verb(verbs, "escalate", "raise the telemetry level of a run for some updates")
    verb.add_argument("run", metavar="RUN")
    verb.add_argument("--level", default="debug", help="minimal, normal or debug (debug)")
    verb.add_argument("--for", dest="updates", type=_positive, metavar="UPDATES", required=True, help="updates of the trainer")
    verb.add_argument("--reason", default="", help="kept with the escalation")
    verb.add_argument("--id", metavar="ID", help="chosen by you: the same request sent again changes nothing")
    verb.add_argument(
        "--wait",
        nargs="?",
        type=_seconds,
        const=WAIT_DEFAULT_S,
        metavar="SECONDS",
        help="until the trainer has applied it (60)",
    )
    _add_attention(verbs)
    _add_commands(verbs)
    token = _verb(
        verbs,
        "token",
        "print the owner's bearer token, for curl; make, list or revoke tokens for others; link: the dashboard's address",
    )
    token.add_argument("action", nargs="?", choices=("print", "link", "add", "list", "revoke"), default="print")
    token.add_argument("name", nargs="?", metavar="NAME", help="of the token to add or revoke")
    token.add_argument("--scope", choices=("read", "operate", "admin"), default="read", help="what it allows (read)")
    token.add_argument("--for", dest="lifetime", metavar="TIME", type=_lifetime, help="until it expires: 45m, 12h, 30d (never)")
    keys = _verb(verbs, "keys", "let trainers of other machines send: make, list or revoke their keys")
    keys.add_argument("action", choices=("add", "list", "revoke"))
    keys.add_argument("name", nargs="?", metavar="NAME", help="of the key to add or revoke, for example the machine")
    audit = _verb(verbs, "audit", "show who changed what, newest first")
    audit.add_argument("--limit", type=_positive, metavar="N", default=50, help="at most (50)")


def _add_attention(verbs: argparse._SubParsersAction[Parser]) -> None:
    ack = _verb(verbs, "ack", "say that you have seen an anomaly; detection and delivery go on")
    ack.add_argument("id", metavar="ID", help="of the anomaly, from `gradwatch anomalies --json`")
    ack.add_argument("--note", metavar="TEXT", help="shown with it")
    ack.add_argument("--undo", action="store_true", help="take it back")
    silence = _verb(verbs, "silence", "deliver nothing of some anomalies for a while; list or end silences")
    silence.add_argument("action", choices=("add", "list", "end"))
    silence.add_argument("id", nargs="?", metavar="ID", help="of the silence to end")
    silence.add_argument("--run", metavar="RUN", help="of this run (any)")
    silence.add_argument("--kind", metavar="KIND", help="of this kind (any)")
    silence.add_argument("--subject", metavar="NAME", help="of this head, layer or key (any)")
    silence.add_argument("--all", action="store_true", help="any anomaly of any run")
    silence.add_argument("--for", dest="lifetime", metavar="TIME", type=_lifetime, help="until it expires: 45m, 12h, 30d")
    silence.add_argument("--reason", metavar="TEXT", help="kept with it")


def _add_commands(verbs: argparse._SubParsersAction[Parser]) -> None:
    level = _verb(verbs, "level", "show the level of a run, change its base, or pin it")
    level.add_argument("run", metavar="RUN")
    level.add_argument("--base", metavar="LEVEL", help="what holds without escalations: off, minimal, normal or debug")
    level.add_argument("--pin", metavar="LEVEL|none", help="what holds whatever is active; none lets go of it")
    level.add_argument(
        "--wait",
        nargs="?",
        type=_seconds,
        const=WAIT_DEFAULT_S,
        metavar="SECONDS",
        help="until an update shows it (30)",
    )
    calm = _verb(verbs, "calm", "end every escalation of a run and let go of its pin")
    calm.add_argument("run", metavar="RUN")
    _add_command(verbs, "stop", "ask a trainer to stop; it does when it next looks at should_stop")
    _add_command(verbs, "checkpoint", "ask a trainer to write a checkpoint, where it offers that")
    _add_command(verbs, "dump", "ask a trainer for its black box: what it saw of the last updates")
    profile = _add_command(verbs, "profile", "record some updates of a trainer with torch.profiler, and fetch the trace")
    profile.add_argument("--updates", type=_positive, metavar="N", default=3, help="whole updates to record, at most 100 (3)")
    profile.add_argument("--stacks", action="store_true", help="with Python call stacks; slows training more")
    profile.add_argument("--output", "-o", metavar="FILE", help="with --wait: where to put the trace (its own name, here)")
    other = _add_command(verbs, "command", "ask a trainer for anything it offers by mon.on_command")
    other.add_argument("word", metavar="VERB", help="one of those that `gradwatch runs RUN` lists")
    other.add_argument(
        "--arg", dest="arguments", metavar="NAME=VALUE", action="append", default=[], help="for its function; may be repeated"
    )
    listed = _verb(verbs, "commands", "list what a run was asked to do and what became of it, or take one back")
    listed.add_argument("run", metavar="RUN")
    listed.add_argument("--cancel", metavar="ID", help="take this one back")
    listed.add_argument("--fetch", metavar="ID", help="get the file that came for this one")
    listed.add_argument("--output", "-o", metavar="FILE", help="with --fetch: where to put it (its own name, here)")
    listed.add_argument("--limit", type=_positive, metavar="N", default=50, help="at most (50)")


def _add_command(verbs: argparse._SubParsersAction[Parser], name: str, summary: str) -> Parser:
    """A verb that asks a run for something; all of them are run by one module."""
    verb = _verb(verbs, name, summary)
    verb.set_defaults(module="command")
    verb.add_argument("run", metavar="RUN")
    verb.add_argument("--reason", default="", help="kept with the command")
    verb.add_argument("--rank", type=int, metavar="N", help="this rank only (all)")
    verb.add_argument("--id", metavar="ID", help="chosen by you: the same request sent again changes nothing")
    verb.add_argument(
        "--wait", nargs="?", type=_seconds, const=WAIT_DEFAULT_S, metavar="SECONDS", help="until the trainer did it (60)"
    )
    return verb


def _add_past(verbs: argparse._SubParsersAction[Parser]) -> None:
    verb = _verb(verbs, "replay", "run stored updates through detection again; a gate for scripts")
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
    verb = _verb(verbs, "import", "store a log of TensorBoard or Stable-Baselines3, or a spool, and judge it")
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
        "--updates-total", type=_positive, metavar="N", help="how long the run was planned, for rules that depend on progress"
    )
    verb.add_argument("--profile", help="rules to detect with where no daemon runs: default or classic")
    verb.add_argument("--data-dir", metavar="DIR", help="where to store it (where the running daemon stores)")
    verb.add_argument("--config", metavar="FILE", help="TOML file, as of `gradwatch serve`")


def _add_export(verbs: argparse._SubParsersAction[Parser]) -> None:
    verb = _verb(verbs, "export", "write a run or an anomaly into a file, or the whole store, while the daemon writes on")
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


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def _lifetime(text: str) -> float:
    unit = {"m": 60, "h": 3600, "d": 86_400}.get(text[-1:])
    if unit is None or not text[:-1].isdigit() or not int(text[:-1]):
        raise argparse.ArgumentTypeError(f"expected a time such as 45m, 12h or 30d, got {text!r}")
    return float(int(text[:-1]) * unit)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"expected 0 to 86400 seconds, got {text}")
    return value


_positive.__name__ = "number"
_seconds.__name__ = "number of seconds"
