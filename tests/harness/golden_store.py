"""The data of a daemon as each version of its schema wrote it: `python -m harness.golden_store` writes that of today.

The files in tests/data/store are never written again: they are what people may have on their disks. Each holds the same facts,
so that one test opens them all; a new field of a record comes back with its default.
"""

from __future__ import annotations

import math
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch_contracts.control import ControlState, Level, RankState, Severity
from gradwatch_daemon.records import (
    Anomaly,
    Attached,
    Checkpoint,
    Commit,
    Escalation,
    EventRecord,
    LossRecord,
    Run,
    Session,
    Stream,
    TableRecord,
)
from gradwatch_daemon.records.attention import Acknowledgement, Attention, Silence
from gradwatch_daemon.records.commands import CommandRecord
from gradwatch_daemon.records.notices import Delivery
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.signal_blocks import make_block

if TYPE_CHECKING:
    from gradwatch_daemon.records import SignalBlock

FOLDER = Path(__file__).parents[1] / "data" / "store"
STREAM = Stream("golden", 1, 0)
ROWS = 1100
"""One chunk and a tail."""

RUN = Run(
    "golden", 1, "launch", "group", {"team": "robots"}, {"node": "n1"}, {"lr": 3e-4, "nan": math.inf}, 5000, 1, "finished",
    Level.NORMAL, None, 3, 1_000, 2_000,
)  # fmt: skip
SESSION = Session("s1", STREAM, "launch", 2**63 + 1, "host", 7, ("level",))
ANOMALY = Anomaly(
    "a1", "golden", 1, 0, "kl_spike", "arm", Severity.WARNING, "firing", 10, 12, 14, None, 3, math.inf, 0.1, None, 2, "policy",
    "KL is above 0.1.", (Attached("ratio_explosion", "", Severity.CRITICAL, 11, 12, 6.0, 5.0),), ("fewer epochs",), "rules", 5,
)  # fmt: skip
ESCALATION = Escalation(
    "e1", "golden", Level.DEBUG, 5, "anomaly:a1", "kl_spike", ControlState.APPLIED, 77, 13, None, "", kind=ANOMALY.kind
)  # fmt: skip
EVENT = EventRecord(STREAM, "s1", 0, 2, 30, "note", "hi", {"x": 1.5})
MARK = EventRecord(STREAM, "", -1, 9, 90, "tick", "", {"rows": 10, "mark": 0})
LOSS = LossRecord(STREAM, "s1", 2000, 2009, "outbox full")
TABLE = TableRecord(STREAM, "s1", 1, "layers", 2, ("l1",), ("norm",), b"\0" * 8)
ATTENTION = Attention("a1", Acknowledgement("owner", 7, "seed 3"), "s1")
SILENCE = Silence("s1", "golden", "kl_spike", None, "known", "owner", 5, 9, None, 1)
COMMAND = CommandRecord(
    "c1", "golden", "profile", {"updates": 3}, "operator", "slow", ControlState.APPLIED, 77, 99, 0, 12, 13, None, "",
    (RankState(0, ControlState.APPLIED, 13, "", 13),),
)  # fmt: skip
DELIVERY = Delivery("0a", "ops", "a1", "firing", "warning", "golden", 5, "{}", "delivered", 1, 6, "200 OK")
CHECKPOINT = Checkpoint(STREAM, 1050, "rules", b"\0state")


def rows() -> list[SignalBlock]:
    """The rows of the stream, as they were committed."""
    return [make_block(range(first, min(first + 51, ROWS)), stream=STREAM) for first in range(0, ROWS, 51)]


def file_of(version: int) -> Path:
    """The dump of a version."""
    return FOLDER / f"schema_{version}.sql"


def write_all(store: SqliteStore) -> None:
    """Every record above, in a store of any version."""
    *blocks, last = rows()
    for block in blocks:
        store.commit(Commit((block,)))
    store.commit(
        Commit(runs=(RUN,), sessions=(SESSION,), anomalies=(ANOMALY,), escalations=(ESCALATION,), checkpoints=(CHECKPOINT,))
    )
    store.commit(Commit((last,), events=(EVENT, MARK), losses=(LOSS,), tables=(TABLE,)))
    store.commit(Commit(attention=(ATTENTION,), silences=(SILENCE,), commands=(COMMAND,), deliveries=(DELIVERY,)))
    while store.compact():
        pass


def dump(file: Path) -> str:
    """A database as SQL, with what marks it as ours."""
    with closing(sqlite3.connect(file)) as db:
        facts = [
            f"PRAGMA {name} = {db.execute(f'PRAGMA {name}').fetchone()[0]};" for name in ("application_id", "user_version")
        ]
        return "\n".join([*facts, *db.iterdump(), ""])


def main() -> None:
    """Write the file of this version where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore.open(folder)
        write_all(store)
        store.close()
        with closing(sqlite3.connect(Path(folder) / "gradwatch.db")) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
        file = file_of(version)
        if file.exists():
            print(f"{file} is there; what was released is never written again")
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dump(Path(folder) / "gradwatch.db"), encoding="utf-8")
        print(file)


if __name__ == "__main__":
    main()
