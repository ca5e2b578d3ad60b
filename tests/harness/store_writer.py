"""A process that commits to a store until it is killed: `python -m harness.store_writer DIR`.

Commit k holds `ROWS` rows of updates k x ROWS on, an event and an anomaly of seq k, and the session's seq k. It prints k when
the commit has returned, so whoever reads the line may rely on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gradwatch_contracts.control import Severity
from gradwatch_daemon.records import Anomaly, Commit, EventRecord, LossRecord, Session
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.signal_blocks import STREAM, make_block

ROWS = 96
"""Rows of one commit: not a divisor of a chunk, so that some commits lie across two."""


def batch_of(k: int) -> Commit:
    """Commit number k: one of everything that must not be torn apart."""
    anomaly = Anomaly(
        f"a{k:06d}", STREAM.run, 1, 0, "kl_spike", "", Severity.WARNING, "firing", k, k, k, None, 1, 0.5, 0.1, None, 0,
        "policy", "", (), (), "rules", k,
    )  # fmt: skip
    return Commit(
        blocks=(make_block(range(k * ROWS, (k + 1) * ROWS)),),
        sessions=(Session("s", STREAM, "launch", k, "host", 1),),
        anomalies=(anomaly,),
        events=(EventRecord(STREAM, "s", k, k * ROWS, k, "note", "", {}),),
        losses=(LossRecord(STREAM, "s", k, k, "device busy"),),
    )


def main() -> None:
    """Go on where the last one was killed."""
    store = SqliteStore.open(Path(sys.argv[1]))
    session = store.session("s")
    k = session.last_seq + 1 if session is not None else 0
    while True:
        store.commit(batch_of(k))
        print(k, flush=True)
        store.compact()
        k += 1


if __name__ == "__main__":
    main()
