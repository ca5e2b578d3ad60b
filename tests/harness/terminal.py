"""`gradwatch top` on a screen of 80 by 24 in this process, in front of a scripted daemon."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.client import Address, Client
from gradwatch_daemon.cli.top.app import TopApp
from gradwatch_daemon.cli.top.feed import Wanted, first_picture, read_closeup
from gradwatch_daemon.cli.top.lines import UNICODE
from gradwatch_daemon.cli.top.view import Page, View
from harness import api_documents as documents
from harness.daemon_stub import TOKEN, DaemonStub, OpenStream, sse

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot

    from gradwatch_daemon.cli.top.lines import Glyphs

SIZE = (80, 24)
RUN = "/api/v1/runs/ant-ppo"


def script_daemon(stub: DaemonStub, *, anomalies: list[dict[str, Any]] | None = None) -> OpenStream:
    """A daemon with two runs, one of which has an open anomaly and a blind detector; the stream that stays open."""
    quiet = documents.run_summary(
        run="humanoid-lstm",
        state="lost",
        live=False,
        anomalies_open=0,
        updates_total=None,
        coverage=documents.WHOLE,
        level={"base": "normal", "pin": None, "effective": None},
        sentence="The connection was lost after update 120.",
    )
    stub.answer("GET", "/api/v1/daemon", documents.daemon(version="1.2.3"))
    stub.answer("GET", "/api/v1/runs", documents.listed(documents.run_summary(), quiet))
    found = [documents.anomaly()] if anomalies is None else anomalies
    stub.answer("GET", "/api/v1/anomalies", documents.anomalies(*found))
    stub.answer("GET", RUN, documents.run_detail(standings=_standings()))
    reward = documents.signal_item(
        signal="episode.return.mean", value_last=905.25, unit="return", status="level", reason="not collected at this level"
    )
    stub.answer("GET", f"{RUN}/signals", documents.listed(documents.signal_item(value_last="NaN"), reward))
    stub.answer("GET", f"{RUN}/series", _series())
    stub.answer("GET", f"{RUN}/escalations", documents.listed())
    stream = OpenStream(sse("hello", {"topics": ["run"]}, "e-1"))
    stub.streams.append(stream)
    return stream


def _standings() -> list[dict[str, Any]]:
    """One firing, two blind, one learning, five armed: as the counts say."""
    kinds = ("nonfinite", "kl_extreme", "kl_spike", "ratio_collapse", "entropy_low")
    armed = [{"kind": kind, "subject": "", "state": "armed", "reason": "", "add": ""} for kind in kinds]
    firing = {"kind": "ratio_explosion", "subject": "", "state": "firing", "reason": "", "add": ""}
    learning = {"kind": "gradient_drift", "subject": "", "state": "learning", "reason": "12 of 36 updates", "add": ""}
    (_, blind) = documents.run_detail()["standings"]
    unseen = {
        **blind,
        "kind": "lstm_unhealthy",
        "subject": "",
        "reason": "rnn.h.rms: call recurrent()",
        "add": "mon.recurrent(h, c)",
    }
    return [*armed, firing, learning, blind, unseen]


def _series() -> dict[str, Any]:
    """Forty updates: a slow rise, a spike, a NaN, an infinity, and two that were not measured."""
    values: list[Any] = [0.01 + 0.001 * i for i in range(40)]
    values[20], values[25], values[26], values[30], values[31] = 0.5, "NaN", "Infinity", None, None
    missing = [value is None for value in values]
    return documents.series(
        update=list(range(81, 121)),
        at=["2026-01-31T12:00:00.000Z"] * 40,
        env_steps=[None] * 40,
        low=values,
        high=values,
        last=values,
        measured=[0 if gone else 1 for gone in missing],
        nonfinite=[int(isinstance(value, str)) for value in values],
        status=["level" if gone else "measured" for gone in missing],
        rows=40,
    )


def client_of(stub: DaemonStub) -> Client:
    """With the right token."""
    return Client(Address(stub.url, TOKEN, "GRADWATCH_URL"))


def make_app(
    stub: DaemonStub,
    *,
    run: str = "",
    glyphs: Glyphs = UNICODE,
    readonly: bool = False,
    clock: Callable[[], float] = lambda: 42.0,
) -> TopApp:
    """The application as the verb makes it, with clocks that stand still."""
    client = client_of(stub)
    picture = first_picture(client)
    view = View(Page.RUN, run=run, before=(View(),)) if run else View()
    if run:
        picture = replace(picture, closeup=read_closeup(client, Wanted(run)))
    return TopApp(
        lambda: client_of(stub), picture, view, glyphs=glyphs, readonly=readonly, time=lambda: "12:05:01", clock=clock
    )


def screen_of(app: TopApp) -> str:
    """What is on the screen, without colours; the port of the stub is always the same."""
    rows = ["".join(segment.text for segment in strip).rstrip() for strip in app.screen._compositor.render_strips()]
    return re.sub(r"127\.0\.0\.1:\d{5}", "127.0.0.1:9470 ", "\n".join(rows)) + "\n"


async def until(pilot: Pilot[None], said: str | Callable[[str], bool], seconds: float = 10.0) -> str:
    """The screen once it holds a text (or satisfies a condition); fails with the screen as it is."""
    app = pilot.app
    assert isinstance(app, TopApp)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while loop.time() < deadline:
        await pilot.pause(0.02)
        screen = screen_of(app)
        if said in screen if isinstance(said, str) else said(screen):
            return screen
    raise AssertionError(f"waited {seconds} s for {said!r}; the screen is\n{screen_of(app)}")
