"""What `watch` does: checks what it is given, raises before training starts, and puts the parts of one monitor together."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradwatch_agent import arguments
from gradwatch_agent.collect.host import Hints
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.exits import EXITS
from gradwatch_agent.link import Link
from gradwatch_agent.monitor import Monitor
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.process import Locator, identify, resolve_endpoint
from gradwatch_agent.spool.delivery import Delivery
from gradwatch_agent.spool.disk import Spool
from gradwatch_agent.spool.files import SessionDirectory
from gradwatch_agent.spool.spilling import SpillingOutbox
from gradwatch_contracts import __version__
from gradwatch_contracts.control import Level
from gradwatch_contracts.messages import Hello

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gradwatch_agent.arguments import Settings
    from gradwatch_agent.process import Identity
    from gradwatch_agent.session import Outgoing
    from gradwatch_agent.spool.delivery import Connect
    from gradwatch_contracts.messages import Command


def open_monitor(given: Mapping[str, Any]) -> Monitor:
    """The monitor for these arguments of `watch`, by name; see there."""
    settings = arguments.Settings(
        run=arguments.check_run(given["run"], os.environ, sys.argv[0] if sys.argv else ""),
        modules=arguments.check_modules(given["model"]),
        optimizers=arguments.check_optimizers(given["optimizer"]),
        group=arguments.check_group(given["group"]),
        tags=arguments.check_tags(given["tags"]),
        config=arguments.check_config(given["config"], Hints()),
        labels=arguments.check_labels(given["labels"], arguments.check_modules(given["model"])),
        updates_total=arguments.check_count(given["updates_total"], "updates_total", 1, optional=True),
        update_start=arguments.check_count(given["update_start"], "update_start", 0) or 0,
        action_space=arguments.check_space(given["action_space"]),
        level=arguments.check_level(given["level"], os.environ),
        sync=arguments.check_mode(given["mode"]),
        off_policy=arguments.check_flag(given["off_policy"], "off_policy"),
        max_staged_bytes=arguments.check_count(given["max_staged_bytes"], "max_staged_bytes", arguments.STAGED_BYTES_MIN) or 0,
        collect_every=arguments.check_count(given["collect_every"], "collect_every", 1) or 1,
        switches=arguments.check_collect(given["collect"]),
        overhead=arguments.check_overhead(given["overhead"], os.environ),
        probe=arguments.check_probe(given["probe"]),
        agree=arguments.check_agree(given["agree"]),
        spool=arguments.check_spool(given["spool"], os.environ),
    )
    return _open(settings, given["endpoint"], os.environ)


def _open(settings: Settings, endpoint: str, env: Mapping[str, str]) -> Monitor:
    """The monitor of these settings: a new one, an inert one, or the one there is."""
    address, secret = resolve_endpoint(endpoint, env)
    identity = identify(env, host=socket.gethostname(), pid=os.getpid(), parent_pid=os.getppid())
    if not arguments.is_enabled(env):
        return Monitor(settings, Outbox(), DesiredState(Level.OFF), None, EXITS)
    for other in EXITS.monitors:
        if isinstance(other, Monitor) and other.run == settings.run:
            if other.watches(settings):
                other.follow(settings)
                return other
            other.close()  # the same run with another model: a notebook cell run again
    return _start(settings, identity, address, secret, Locator(endpoint, env))


def _start(settings: Settings, identity: Identity, address: str, secret: str, locate: Locator) -> Monitor:
    """Put the parts of one monitor together and start its thread."""
    started_ns = time.time_ns()
    outbox, desired = Outbox(), DesiredState(settings.level)
    settings = replace(settings, world=identity.world)
    # The link may outlive the run; the model must not.
    told = replace(settings, modules=(), optimizers=(), agree=None, probe=None)

    def hello() -> Hello:
        return Hello(
            told.run,
            identity.launch_id,
            identity.session,
            identity.rank,
            identity.world,
            identity.host,
            identity.pid,
            started_ns,
            group=told.group,
            tags=told.tags,
            labels=told.labels,
            config=told.config,
            updates_total=told.updates_total,
            update_next=monitor.update,
            level=int(monitor.level),
            verbs=monitor.actions.verbs.names,
            agent_version=__version__,
        )

    def refuse(sentence: str) -> None:
        monitor.refused = True

    def obey(command: Command) -> None:
        monitor.actions.commands.receive(command)

    def report(place: str, text: str) -> None:
        outbox.put_event("agent_error", monitor.update, time.time_ns(), text, {"place": place[:256]})

    def turn(connection: int) -> None:
        monitor.tell_pause(connection)

    def connect(hello: Callable[[], Hello], records: Outgoing, desired: DesiredState) -> Link:
        return Link(address, secret, hello, records, desired, on_own_error=report, locate=locate.again())

    def regret(sentence: str) -> None:
        outbox.put_event("spool", monitor.update, time.time_ns(), sentence)

    records, delivery = _with_spool(outbox, settings, identity.session, hello, connect, tell=regret)
    link = Link(
        address,
        secret,
        hello,
        records,
        desired,
        on_refused=refuse,
        on_command=obey,
        on_own_error=report,
        locate=locate,
        delivery=delivery,
        each_turn=turn,
    )
    monitor = Monitor(settings, outbox, desired, link, EXITS)
    monitor.open()
    link.start()
    return monitor


def _with_spool(
    outbox: Outbox,
    settings: Settings,
    session: str,
    hello: Callable[[], Hello],
    connect: Connect,
    *,
    tell: Callable[[str], None],
) -> tuple[Outgoing, Delivery | None]:
    """What the link sends from, and what goes first: the outbox and nothing, where no spool is wanted."""
    if not settings.spool:
        return outbox, None
    files = SessionDirectory(os.path.join(settings.spool, settings.run, session))
    disk = Spool(files, lambda: replace(hello(), replay=True))
    return SpillingOutbox(outbox, disk, time.monotonic()), Delivery(settings.spool, settings.run, connect, tell)
