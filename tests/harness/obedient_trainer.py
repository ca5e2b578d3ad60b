"""A trainer without torch that offers commands and stops when it is asked: `python obedient_trainer.py RUN PACE_MS FILE`.

It writes FILE on the command `checkpoint`, fails on `explode`, and prints the update at which it stopped.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gradwatch_agent import watch

UPDATES_MAX = 100_000


def main() -> None:
    """Train for ever, unless asked to stop."""
    run, pace_ms, file = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    mon = watch(run=run)

    def save(args: dict[str, object]) -> str:
        file.write_text(f"{mon.update} {args.get('tag')}")
        return f"saved as {file.name}"

    def explode(args: dict[str, object]) -> None:
        raise RuntimeError("no room left")

    mon.on_command("checkpoint", save)
    mon.on_command("explode", explode)
    for _ in range(UPDATES_MAX):
        time.sleep(pace_ms / 1000)
        mon.step()
        if mon.should_stop:
            break
    print(mon.update, flush=True)
    mon.close()


if __name__ == "__main__":
    main()
