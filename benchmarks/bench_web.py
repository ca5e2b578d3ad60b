"""The dashboard in Chromium: first page of a run of 1,000,000 updates, a live tick, the heap. `python benchmarks/bench_web.py`

The stored run has 12 signals, one NaN and one spike, and the page asks for them as it does for any run. The live run is fed ten
rows a second. Script is what Chromium counts as such, in time of its thread; the heap is taken after a garbage collection.
"""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from playwright.sync_api import sync_playwright

from feed import Feed, frames, values_of
from gradwatch_contracts.control import Level
from gradwatch_daemon.records import Commit, Run, SignalBlock, SignalKey, Stream
from gradwatch_daemon.store.sqlite import SqliteStore
from service import Service
from table import Figure, arguments, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, CDPSession, Page

UPDATES = 1_000_000
BLOCK = 8192
SIGNALS = (
    "episode.return.mean", "policy.kl.k3", "policy.entropy.norm", "policy.ratio.max", "policy.clip_fraction", "grad.norm.mean",
    "value.explained_variance", "value.error.rms", "grad.health", "loss.total", "opt.lr", "sys.update_ms",
)  # fmt: skip
SPIKE, NAN = 654_321, 345_678
LOADS = 3
TICKS_S = 45.0
ROWS_PER_S = 10.0
KEYS = tuple(SignalKey(name) for name in SIGNALS)
STREAM = Stream("large", 1, 0)

DRAWN = """() => new Promise((done) => {
  const look = () => {
    const panels = [...document.querySelectorAll('.panel')].filter((one) => one.getBoundingClientRect().top < innerHeight);
    const drawn = panels.length && panels.every((one) => one.querySelector('canvas'));
    requestAnimationFrame(drawn ? () => done(performance.now()) : look);
  };
  look();
})"""
"""Milliseconds from the start of the navigation until every panel on the screen has its lines, and the frame with them."""


@contextmanager
def launched() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def fill(data_dir: Path, updates: int) -> None:
    """A store with one finished run. Its rows are those of the first of two attempts: a daemon that starts would otherwise
    first judge all of the newest attempt again, for want of a checkpoint, which is not what is measured here."""
    data_dir.mkdir(mode=0o700)
    rng = np.random.default_rng(7)
    store = SqliteStore.open(data_dir)
    now = time.time_ns()
    run = Run("large", 2, "launch", "", {}, {}, {}, updates, 1, "finished", Level.NORMAL, None, 0, now - updates * 10**9, now)
    store.commit(Commit(runs=(run,)))
    for first in range(0, updates, BLOCK):
        n = min(BLOCK, updates - first)
        update = np.arange(first, first + n, dtype=np.int64)
        values = np.abs(rng.standard_normal((len(KEYS), n))).astype(np.float32) * 0.01 + 0.5
        if first <= SPIKE < first + n:
            values[1, SPIKE - first] = 37.0
        if first <= NAN < first + n:
            values[1, NAN - first] = np.nan
        status = np.zeros((len(KEYS), n), np.uint8)
        level, flags = np.full(n, 2, np.uint8), np.zeros(n, np.uint8)
        t_ns = now - (updates - update) * 10**9
        store.commit(Commit(blocks=(SignalBlock(STREAM, update, t_ns, update * 2048, level, flags, KEYS, values, status),)))
        while store.compact():
            pass
    store.close()


def sign_in(browser: Browser, service: Service) -> tuple[Page, CDPSession]:
    """A fresh profile: nothing of an earlier load is in its cache."""
    url = service.connection.url
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    token = Path(service.connection.token_file).read_text().strip()
    context.request.post(f"{url}/session", headers={"Authorization": f"Bearer {token}", "Origin": url})
    page = context.new_page()
    return page, context.new_cdp_session(page)


def first_page(browser: Browser, service: Service, loads: int) -> tuple[float, dict[str, Any]]:
    """Median milliseconds of a first load in a fresh profile; and what the panel of KL has."""
    taken, panel = [], {}
    for _ in range(loads):
        page, _session = sign_in(browser, service)
        page.goto(f"{service.connection.url}/#/runs/large?attempt=1&signals={','.join(SIGNALS)}", wait_until="commit")
        taken.append(float(page.evaluate(DRAWN)))
        panel = page.evaluate("document.querySelectorAll('.panel')[1].gradwatch()")
        page.context.close()
    return float(np.median(taken)), panel


def metrics(session: CDPSession) -> dict[str, float]:
    """Chromium's own counters, after a garbage collection."""
    session.send("HeapProfiler.collectGarbage")
    return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}


def live(browser: Browser, service: Service, seconds: float) -> tuple[float, float, int]:
    """Milliseconds of script for each tick, bytes by which the heap grew for each, and ticks."""
    feed = Feed(service.connection, "live")
    rows = frames(values_of(np.random.default_rng(3), 300 + int((seconds + 30) * ROWS_PER_S)), 1)
    ready = iter(rows)

    def send(count: int) -> None:
        for _ in range(count):
            feed.send(*next(ready))

    send(300)
    feed.wait(299)
    page, session = sign_in(browser, service)
    ticks: list[str] = []
    page.on("request", lambda request: ticks.append(request.url) if "/chart?" in request.url else None)
    page.goto(f"{service.connection.url}/#/runs/live", wait_until="commit")
    page.evaluate(DRAWN)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def run(duration: float) -> None:
        end = time.monotonic() + duration
        while time.monotonic() < end:
            send(1)
            page.wait_for_timeout(1000 / ROWS_PER_S)

    run(8.0)
    before, counted = metrics(session), len(ticks)
    run(seconds)
    after, n = metrics(session), len(ticks) - counted
    feed.close()
    page.context.close()
    script = after["ScriptDuration"] - before["ScriptDuration"]
    return script * 1000 / max(1, n), (after["JSHeapUsedSize"] - before["JSHeapUsedSize"]) / max(1, n), n


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__).parse_args()
    updates = UPDATES // 20 if given.quick else UPDATES
    service = Service("classic")
    (service.home / "data").mkdir(mode=0o700, exist_ok=True)
    (service.home / "data").rmdir()
    fill(service.home / "data", updates)
    with service, launched() as browser:
        load_ms, panel = first_page(browser, service, 2 if given.quick else LOADS)
        script_ms, heap_bytes, ticks = live(browser, service, 10.0 if given.quick else TICKS_S)
    highest = max(value for value in panel["high"] if value is not None)
    found = [
        Figure("first page of a run, until its panels are drawn", load_ms / 1000, "s", 1.0),
        Figure("script of one live tick", script_ms, "ms", 8.0),
        Figure("heap a live tick leaves behind", heap_bytes, "B", 2000.0),
    ]
    notes = [
        f"{updates:,} updates x {len(SIGNALS)} signals in {len(panel['update'])} points of {panel['bucket']}; {ticks} ticks",
        f"seen in the panel: highest {highest:.3g} (37 was stored once), {sum(panel['nonfinite'])} NaN (1 was stored)",
        "2,000 B a tick are 20 MB in 10,000 ticks",
    ]
    print_table("The dashboard in Chromium", found, notes=notes, args=given)


if __name__ == "__main__":
    main()
