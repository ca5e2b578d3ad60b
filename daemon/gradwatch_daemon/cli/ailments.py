"""What `gradwatch doctor` can find wrong with a daemon and its runs, from the documents of the API. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 2**30
DISK_FREE_BYTES_MIN = GIB
DISK_FREE_SHARE_MIN = 0.05
DISK_FREE_BYTES_ENOUGH = 10 * GIB
"""A twentieth of a large disk is plenty: at 200 bytes an update this holds fifty million updates."""

CLOCK_AHEAD_S_MAX = 2.0
"""A row cannot come before it was made; NTP keeps machines within tens of milliseconds of each other."""

ROW_LATE_S_MAX = 30.0
"""Rows of a connected trainer come within tens of milliseconds; much later is a backlog, or a clock that is behind."""

LOSS_ADVICE = {
    "outbox full": "The daemon was away or slow for longer than the trainer can hold rows: keep `gradwatch serve` running.",
    "device busy": "The device took several updates to hand over one: it is overloaded, or the updates are very short.",
    "not sent before the end": "The trainer ended before its last rows were through: call mon.close() before it exits.",
}

REFUSAL_ADVICE = {
    "secret-wrong": "Give the trainer the GRADWATCH_RUNTIME_DIR of this daemon, where the right connection.json is.",
    "protocol-unsupported": "Install the same version of gradwatch for trainer and daemon.",
}

SQLITE_FIXED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""First releases of their branches without the WAL-reset bug (sqlite.org/wal.html#walresetbug)."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """One mistake: what is wrong, how that shows, what to do. One that is not `grave` is worth knowing, no more."""

    code: str
    what: str
    why: str = ""
    next_step: str = ""
    run: str = ""
    grave: bool = True


def check_daemon(daemon: dict[str, Any], version: str) -> Iterator[Ailment]:
    """What the daemon's own document shows; `version` is that of this command."""
    for trouble in daemon["trouble"]:
        yield Ailment("not-ready", "The daemon is not ready.", trouble, "Its log says why; data waits in the trainers.")
    if daemon["version"] != version:
        yield Ailment(
            "version-differs",
            "This command and the daemon are of different versions.",
            f"command {version}, daemon {daemon['version']}",
            "Restart the daemon after an upgrade, and upgrade both.",
        )
    disk = daemon["data_dir"]
    enough = min(max(DISK_FREE_BYTES_MIN, DISK_FREE_SHARE_MIN * disk["size_bytes"]), DISK_FREE_BYTES_ENOUGH)
    if disk["free_bytes"] < enough:
        free = f"{disk['free_bytes'] / GIB:.2f} of {disk['size_bytes'] / GIB:.0f} GiB are free at {disk['path']}"
        yield Ailment("disk-full", "The data directory is nearly full.", free, "Free some, or choose another with --data-dir.")
    for code, count in sorted(daemon["refused"].items()):
        if code in REFUSAL_ADVICE:
            yield Ailment("agent-refused", f"Trainers were refused {count}x: {code}.", "", REFUSAL_ADVICE[code])
    if daemon["quarantines"]:
        why = f"{daemon['quarantines']}x after bad frames: {_counted(daemon['refused'])}"
        yield Ailment("quarantine", "A sender was ignored for a while.", why, "Something else than an agent sends there.")
    if daemon["commit_failures"]:
        failed = f"{daemon['commit_failures']} since {daemon['started_at']}, each repeated until it worked"
        yield Ailment("commit-failed", "The store could not be written at times.", failed, "The daemon's log says why.")
    if has_wal_reset_bug(daemon["sqlite"]):
        yield Ailment(
            "sqlite-wal-reset",
            f"SQLite {daemon['sqlite']} has the WAL-reset bug.",
            "It needs two connections that checkpoint; this daemon has one, so its data is not exposed.",
            "Do not write to its database with other tools. Fixed in 3.51.3.",
            grave=False,
        )


def check_detectors(catalogue: dict[str, Any]) -> Iterator[Ailment]:
    """What the list of detectors shows: those of other packages that could not be loaded look for nothing."""
    for one in catalogue["broken"]:
        yield Ailment(
            "detector-broken",
            f"The detector {one['name']} of {one['origin']} is not there.",
            one["reason"],
            "Mend or remove its package, then restart the daemon; `gradwatch detectors` lists what it looks for.",
        )


def _counted(refused: dict[str, int]) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(refused.items())) or "none since"


def has_wal_reset_bug(version: str) -> bool:
    """Whether this release of SQLite is one of 3.7.0 to 3.51.2 without the back-ported fix."""
    parts = [int(part) for part in version.split(".")[:3] if part.isdigit()]
    given = (*parts, 0, 0, 0)[:3]
    fixed = next((first for first in SQLITE_FIXED if first[:2] == given[:2]), SQLITE_FIXED[-1])
    return (3, 7, 0) <= given < fixed


def check_run(item: dict[str, Any], daemon: dict[str, Any]) -> Iterator[Ailment]:
    """What the document of one run shows."""
    run = item["run"]
    if item["state"] == "lost":
        yield Ailment(
            "run-lost",
            f"{run}: the connection was lost.",
            f"{item['sentence']} Last seen {item['last_seen_at']}",
            "If the trainer still runs, it comes back by itself; if not, it was killed without a word.",
            run,
        )
    if item.get("beside"):
        words = ", ".join(map(str, item["beside"]))
        yield Ailment(
            "name-shared",
            f"{run}: attempt {words} still trains beside attempt {item['attempt']} under this name.",
            "each launch is an attempt of its run; its state and its levels are those of the newest alone",
            "Give each trainer its own name: gradwatch run --run NAME, watch(run=NAME) or GRADWATCH_RUN_ID.",
            run,
        )
    if item["live"] and item["update_last"] is None:
        yield Ailment(
            "no-update", f"{run}: no update has come yet.", "", "Call mon.step() once at the end of every update.", run
        )
    if item["agent_version"] not in ("", daemon["version"]):
        yield Ailment(
            "agent-version-differs",
            f"{run}: agent and daemon are of different versions.",
            f"agent {item['agent_version']}, daemon {daemon['version']}",
            "Install the same version of gradwatch for both.",
            run,
        )
    yield from _check_clock(item)
    for loss in item["losses"]:
        advice = LOSS_ADVICE.get(loss["reason"], "See the run's events.")
        yield Ailment("lost-records", f"{run}: {loss['records']} records were lost.", loss["reason"], advice, run)
    yield from _check_eyes(item)


def _check_clock(item: dict[str, Any]) -> Iterator[Ailment]:
    if item["row_last"] is None:
        return
    late_s = seconds_between(item["row_last"]["made_at"], item["row_last"]["received_at"])
    if late_s < -CLOCK_AHEAD_S_MAX:
        yield Ailment(
            "clock-ahead",
            f"{item['run']}: the trainer's clock is ahead of the daemon's.",
            f"its newest row is dated {-late_s:.1f} s after it came",
            "Synchronise the clocks (NTP); until then times of this run are wrong, updates are not.",
            item["run"],
        )
    elif item["live"] and late_s > ROW_LATE_S_MAX:
        yield Ailment(
            "rows-late",
            f"{item['run']}: rows come {late_s:.0f} s after they were made.",
            "the trainer sends a backlog, or its clock is behind the daemon's",
            "Look again in a minute: a backlog shrinks, a clock stays behind.",
            item["run"],
        )


def _check_eyes(item: dict[str, Any]) -> Iterator[Ailment]:
    """Blind detectors, those together that the same line would open."""
    blind: dict[tuple[str, str], list[str]] = {}
    for one in item["standings"]:
        if one["state"] == "blind":
            cure = (one["add"], "" if one["add"] else one["reason"])
            blind.setdefault(cure, []).append(one["kind"] + (f" [{one['subject']}]" if one["subject"] else ""))
    for (line, reason), names in blind.items():
        noun = "detector is" if len(names) == 1 else "detectors are"
        yield Ailment(
            "blind",
            f"{item['run']}: {len(names)} {noun} blind: {', '.join(names)}.",
            reason,
            f"In the trainer: {line}" if line else "",
            item["run"],
        )


def seconds_between(earlier: str, later: str) -> float:
    """From one RFC 3339 time to another."""
    first, second = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (earlier, later))
    return (second - first).total_seconds()
