"""Random kills of daemon and trainers under load, and a checker that knows what must be left: in Jepsen's manner.

`python -m harness.crashes --kills 200 --seed 1` in tests/ does it for long; a seed repeats the order of what is done, not the
microsecond. What it holds is docs/delivery.md.
"""

from __future__ import annotations

import argparse
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch_daemon.records import SignalKey, Stream
from gradwatch_daemon.store.sqlite import SqliteStore
from harness import crash_trainer
from harness.crash_trainer import noise
from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from gradwatch_daemon.records import LossRecord

RUNS = {"crash-roomy": "roomy", "crash-cramped": "cramped"}
VICTIMS = ("daemon", "daemon", "daemon", "drained daemon", *RUNS, *RUNS)
"""Who is next: the daemon by kill -9, the daemon by SIGTERM, a trainer by kill -9."""

PAUSE_S = (0.05, 0.6)
"""Between two strikes: time for rows, acks and commits to be under way."""

AWAY_S = (0.0, 2.5)
"""How long the daemon stays away: sometimes long enough for the spool."""


SETTLE_S = 240.0
"""What everything that lies in the spools may take on a busy machine."""


@dataclass(slots=True)
class Life:
    """What one process of a trainer wrote into its diary: its session, and the last record put, acked, on the disk."""

    session: str
    put: int = -1
    acked: int = -1
    spooled: int = -1

    @classmethod
    def of(cls, diary: Path) -> Life | None:
        """None for one that was killed before it began. A line that is cut short does not count."""
        life = None
        for line in diary.read_text().split("\n")[:-1]:
            what, value = line.split(" ")
            if what == "s":
                life = cls(value)
            elif life is not None:
                name = {"p": "put", "a": "acked", "d": "spooled"}[what]
                setattr(life, name, max(getattr(life, name), int(value)))
        return life


@dataclass(slots=True)
class Verdict:
    """What was found; `violations` must be empty."""

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Campaign:
    """A daemon, a trainer of each run, and somebody who kills them. `home` holds everything that is left."""

    def __init__(self, home: Path, seed: int) -> None:
        self._home = home
        self._chance = random.Random(seed)
        self.daemon = DaemonProcess(home)
        self.counts: Counter[str] = Counter()
        self._trainers: dict[str, subprocess.Popen[bytes]] = {}
        self._lives = 0

    def __enter__(self) -> Campaign:
        self.daemon.start()
        for run in RUNS:
            self._begin(run)
        return self

    def __exit__(self, *_: object) -> None:
        for trainer in self._trainers.values():
            trainer.kill()
            trainer.wait(10)
        if self.daemon.process is not None:
            self.daemon.kill()

    def strike(self, kills: int) -> None:
        """Kill so many times, whoever is next; what was killed comes back."""
        for _ in range(kills):
            time.sleep(self._chance.uniform(*PAUSE_S))
            victim = self._chance.choice(VICTIMS)
            self.counts[victim] += 1
            if victim in RUNS:
                self._trainers[victim].kill()
                self._trainers[victim].wait(10)
                self._begin(victim)
                continue
            if victim == "daemon":
                self.daemon.kill()
            else:
                code = self.daemon.stop()
                assert code == 0, f"the daemon ended with {code} on SIGTERM: {self.daemon.log[-2000:]}"
            time.sleep(self._chance.uniform(*AWAY_S))
            self.daemon.start()

    def settle(self) -> None:
        """Let everybody end in peace: trainers first, then one that only sends what they left, then the daemon."""
        for run in RUNS:
            self._end(run)
            if self._left(run):
                self._begin(run, "quiet")
                wait_for(lambda run=run: not self._left(run), f"the spool of {run} to be sent", SETTLE_S)  # type: ignore[misc]
                self._end(run)
        assert self.daemon.stop() == 0

    def _left(self, run: str) -> list[Path]:
        folder = self._home / "spool" / run
        try:
            return list(folder.rglob("*.seg"))
        except FileNotFoundError:  # it is being deleted while we look
            return [folder]

    def _begin(self, run: str, room: str = "") -> None:
        self._lives += 1
        diary = self._home / f"{run}.{self._lives}.diary"
        command = [sys.executable, crash_trainer.__file__, run, str(diary), room or RUNS[run]]
        environment = {**self.daemon.environment, "GRADWATCH_SPOOL_DIR": str(self._home / "spool")}
        with open(self._home / "trainers.log", "ab") as log:
            self._trainers[run] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait_for(lambda: diary.exists() and diary.stat().st_size, "a trainer to begin", 60)

    def _end(self, run: str) -> None:
        self._trainers[run].send_signal(signal.SIGTERM)
        assert self._trainers[run].wait(90) == 0, (self._home / "trainers.log").read_text()[-2000:]


def check(home: Path) -> Verdict:
    """Compare the diaries of all lives with the store, record by record."""
    verdict = Verdict()
    with sqlite3.connect(f"file:{home}/data/gradwatch.db?mode=ro", uri=True) as db:
        (whole,) = db.execute("PRAGMA integrity_check").fetchone()
        query = "SELECT session, run, attempt, rank, last_seq FROM session JOIN stream ON stream.id = session.stream"
        sessions = {session: (Stream(run, attempt, rank), int(last)) for session, run, attempt, rank, last in db.execute(query)}
    db.close()
    if whole != "ok":
        verdict.violations.append(f"the integrity check says {whole}")
    store = SqliteStore.open(home / "data")
    try:
        reader = store.reader()
        losses = {run: reader.losses(run) for run in RUNS}
        reader.close()
        for diary in sorted(home.glob("*.diary")):
            life = Life.of(diary)
            if life is None:
                continue
            verdict.counts["lives"] += 1
            if life.session not in sessions:
                if max(life.acked, life.spooled) >= 0:
                    verdict.violations.append(f"{diary.name}: acked or spooled, and unknown to the store")
                continue
            stream, last_seq = sessions[life.session]
            ours = [loss for loss in losses[stream.run] if loss.session == life.session]
            _check_life(diary.name, life, _rows(store, stream), ours, last_seq, verdict)
    finally:
        store.close()
    return verdict


def _rows(store: SqliteStore, stream: Stream) -> list[tuple[int, float]]:
    """Update and noise of each stored row, in order of arrival."""
    found: list[tuple[int, float]] = []
    for block in store.blocks_after(stream, -1):
        column = block.signals.index(SignalKey("user", "noise"))
        found += zip(block.update.tolist(), block.values[column].tolist(), strict=True)
    return found


def _check_life(
    name: str, life: Life, rows: list[tuple[int, float]], losses: list[LossRecord], last_seq: int, verdict: Verdict
) -> None:
    """Every record of a life up to the last known one is there once, in order and with its number, or told as lost."""

    def blame(what: str) -> None:
        verdict.violations.append(f"{name} ({life.session[:8]}, put {life.put}, acked {life.acked}): {what}")

    updates = [update for update, _ in rows]
    lost = Counter(seq for loss in losses for seq in range(loss.first_seq, loss.last_seq + 1))
    if updates != sorted(set(updates)):
        blame("rows twice or out of order")
    if any(value != noise(life.session, update) for update, value in rows):
        blame("a row with another number than it was given")
    if twice := sorted(set(updates) & lost.keys()):
        blame(f"stored and told as lost: {twice[:5]}")
    if more := [seq for seq, count in lost.items() if count > 1]:
        blame(f"told as lost twice: {sorted(more)[:5]}")
    known = max(last_seq, life.acked, life.spooled)
    if missing := sorted(set(range(known + 1)) - set(updates) - lost.keys()):
        blame(f"neither stored nor told as lost: {len(missing)}, first {missing[:5]}; the store says {last_seq}")
    if max([*updates, *lost, -1]) > life.put:
        blame("records that were never put")
    verdict.counts.update(put=life.put + 1, stored=len(updates), acked=life.acked + 1, lost=len(lost))
    verdict.counts.update({f"lost: {loss.reason}": loss.last_seq - loss.first_seq + 1 for loss in losses})


def run_campaign(home: Path, seed: int, kills: int) -> tuple[Verdict, Counter[str]]:
    """All of it; what was found, and who was killed how often."""
    with Campaign(home, seed) as campaign:
        campaign.strike(kills)
        campaign.settle()
    return check(home), campaign.counts


def main() -> None:
    """Kill for long, in pieces of 50 with a store of their own; exit 1 at the first violation, whose home is kept."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--piece", type=int, default=50, help="kills of one piece (50)")
    args = parser.parse_args()
    total, done = Counter[str](), 0
    while done < args.kills:
        seed, kills = args.seed + done // args.piece, min(args.piece, args.kills - done)
        home = Path(tempfile.mkdtemp(prefix=f"gradwatch-torture-{seed}-"))
        begin = time.monotonic()
        verdict, counts = run_campaign(home, seed, kills)
        done += kills
        total += verdict.counts + counts
        said = f"{kills} kills in {time.monotonic() - begin:.0f} s, {dict(counts)}, {dict(verdict.counts)}"
        print(f"seed {seed}: {said}", flush=True)
        if verdict.violations:
            print(f"VIOLATED, see {home}:", *verdict.violations, sep="\n  ")
            sys.exit(1)
    print(f"{done} kills, no violation: {dict(total)}")


if __name__ == "__main__":
    main()
