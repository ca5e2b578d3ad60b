"""A trainer with a spool, without torch: `python spool_trainer.py RUN UPDATES HOW`. HOW: close, raise or kill.

Its updates are numbered in `user/x`. `kill` is kill -9 by itself, once its spool holds all; `close` waits for a daemon first.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from gradwatch_agent import watch
from gradwatch_contracts.segments import read_segment, seqs_of

PATIENCE_S = 30.0


def spooled() -> int:
    """The last record in any spool, -1 for none."""
    last = -1
    for file in Path(os.environ["GRADWATCH_SPOOL_DIR"]).rglob("*.seg"):
        segment = read_segment(file.read_bytes())
        last = max([last, *(seqs[1] for message in (segment.messages if segment else ()) if (seqs := seqs_of(message)))])
    return last


def main() -> None:
    run, updates, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    mon = watch(run=run, level="minimal")
    for update in range(updates):
        mon.step(env_steps=update, x=float(update))
    deadline = time.monotonic() + PATIENCE_S
    while how == "close" and mon._link is not None and mon._link.state != "live" and time.monotonic() < deadline:
        time.sleep(0.02)
    if how == "kill":
        while spooled() < updates - 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise ValueError("boom")
    mon.close()


if __name__ == "__main__":
    main()
