"""The arguments of verbs that ask for something or change it: levels, commands, what people did, tokens and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.cli.arguments import Parser, add_verb, lifetime, positive, seconds

if TYPE_CHECKING:
    import argparse

WAIT_DEFAULT_S = 60.0


def add_control(verbs: argparse._SubParsersAction[Parser]) -> None:
    """Levels, what people did about anomalies, commands, tokens and keys."""
    verb = add_verb(verbs, "escalate", "raise the telemetry level of a run for some updates")
    verb.add_argument("run", metavar="RUN")
    verb.add_argument("--level", default="debug", help="minimal, normal or debug (debug)")
    verb.add_argument("--for", dest="updates", type=positive, metavar="UPDATES", required=True, help="updates of the trainer")
    verb.add_argument("--reason", default="", help="kept with the escalation")
    verb.add_argument("--id", metavar="ID", help="chosen by you: the same request sent again changes nothing")
    verb.add_argument(
        "--wait",
        nargs="?",
        type=seconds,
        const=WAIT_DEFAULT_S,
        metavar="SECONDS",
        help="until the trainer has applied it (60)",
    )
    _add_attention(verbs)
    _add_commands(verbs)
    token = add_verb(
        verbs,
        "token",
        "print the owner's bearer token, for curl; make, list or revoke tokens for others; link: the dashboard's address",
    )
    token.add_argument("action", nargs="?", choices=("print", "link", "add", "list", "revoke"), default="print")
    token.add_argument("name", nargs="?", metavar="NAME", help="of the token to add or revoke")
    token.add_argument("--scope", choices=("read", "operate", "admin"), default="read", help="what it allows (read)")
    token.add_argument("--for", dest="lifetime", metavar="TIME", type=lifetime, help="until it expires: 45m, 12h, 30d (never)")
    keys = add_verb(verbs, "keys", "let trainers of other machines send: make, list or revoke their keys")
    keys.add_argument("action", choices=("add", "list", "revoke"))
    keys.add_argument("name", nargs="?", metavar="NAME", help="of the key to add or revoke, for example the machine")
    audit = add_verb(verbs, "audit", "show who changed what, newest first")
    audit.add_argument("--limit", type=positive, metavar="N", default=50, help="at most (50)")


def _add_attention(verbs: argparse._SubParsersAction[Parser]) -> None:
    ack = add_verb(verbs, "ack", "say that you have seen an anomaly; detection and delivery go on")
    ack.add_argument("id", metavar="ID", help="of the anomaly, from `gradwatch anomalies --json`")
    ack.add_argument("--note", metavar="TEXT", help="shown with it")
    ack.add_argument("--undo", action="store_true", help="take it back")
    silence = add_verb(verbs, "silence", "deliver nothing of some anomalies for a while; list or end silences")
    silence.add_argument("action", choices=("add", "list", "end"))
    silence.add_argument("id", nargs="?", metavar="ID", help="of the silence to end")
    silence.add_argument("--run", metavar="RUN", help="of this run (any)")
    silence.add_argument("--kind", metavar="KIND", help="of this kind (any)")
    silence.add_argument("--subject", metavar="NAME", help="of this head, layer or key (any)")
    silence.add_argument("--all", action="store_true", help="any anomaly of any run")
    silence.add_argument("--for", dest="lifetime", metavar="TIME", type=lifetime, help="until it expires: 45m, 12h, 30d")
    silence.add_argument("--reason", metavar="TEXT", help="kept with it")
    notify = add_verb(verbs, "notify", "try the channels of notifications, list them, or see what people were told")
    notify.add_argument("action", choices=("test", "list", "log"))
    notify.add_argument("name", nargs="?", metavar="NAME", help="of one channel (all)")
    notify.add_argument("--limit", type=positive, metavar="N", default=50, help="of the log, at most (50)")


def _add_commands(verbs: argparse._SubParsersAction[Parser]) -> None:
    level = add_verb(verbs, "level", "show the level of a run, change its base, or pin it")
    level.add_argument("run", metavar="RUN")
    level.add_argument("--base", metavar="LEVEL", help="what holds without escalations: off, minimal, normal or debug")
    level.add_argument("--pin", metavar="LEVEL|none", help="what holds whatever is active; none lets go of it")
    level.add_argument(
        "--wait",
        nargs="?",
        type=seconds,
        const=WAIT_DEFAULT_S,
        metavar="SECONDS",
        help="until an update shows it (30)",
    )
    calm = add_verb(verbs, "calm", "end every escalation of a run and let go of its pin")
    calm.add_argument("run", metavar="RUN")
    _add_command(verbs, "stop", "ask a trainer to stop; it does when it next looks at should_stop")
    _add_command(verbs, "checkpoint", "ask a trainer to write a checkpoint, where it offers that")
    _add_command(verbs, "dump", "ask a trainer for its black box: what it saw of the last updates")
    profile = _add_command(verbs, "profile", "record some updates of a trainer with torch.profiler, and fetch the trace")
    profile.add_argument("--updates", type=positive, metavar="N", default=3, help="whole updates to record, at most 100 (3)")
    profile.add_argument("--stacks", action="store_true", help="with Python call stacks; slows training more")
    profile.add_argument("--output", "-o", metavar="FILE", help="with --wait: where to put the trace (its own name, here)")
    other = _add_command(verbs, "command", "ask a trainer for anything it offers by mon.on_command")
    other.add_argument("word", metavar="VERB", help="one of those that `gradwatch runs RUN` lists")
    other.add_argument(
        "--arg", dest="arguments", metavar="NAME=VALUE", action="append", default=[], help="for its function; may be repeated"
    )
    listed = add_verb(verbs, "commands", "list what a run was asked to do and what became of it, or take one back")
    listed.add_argument("run", metavar="RUN")
    listed.add_argument("--cancel", metavar="ID", help="take this one back")
    listed.add_argument("--fetch", metavar="ID", help="get the file that came for this one")
    listed.add_argument("--output", "-o", metavar="FILE", help="with --fetch: where to put it (its own name, here)")
    listed.add_argument("--limit", type=positive, metavar="N", default=50, help="at most (50)")


def _add_command(verbs: argparse._SubParsersAction[Parser], name: str, summary: str) -> Parser:
    """A verb that asks a run for something; all of them are run by one module."""
    verb = add_verb(verbs, name, summary)
    verb.set_defaults(module="command")
    verb.add_argument("run", metavar="RUN")
    verb.add_argument("--reason", default="", help="kept with the command")
    verb.add_argument("--rank", type=int, metavar="N", help="this rank only (all)")
    verb.add_argument("--id", metavar="ID", help="chosen by you: the same request sent again changes nothing")
    verb.add_argument(
        "--wait", nargs="?", type=seconds, const=WAIT_DEFAULT_S, metavar="SECONDS", help="until the trainer did it (60)"
    )
    return verb
