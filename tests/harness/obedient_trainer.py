"""A trainer that offers commands and stops when it is asked: `python obedient_trainer.py RUN PACE_MS FILE [torch]`.

With `torch` it multiplies matrices, so that there is something to profile. It writes FILE on the command `checkpoint`, fails
on `explode`, and prints the update at which it stopped.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch_agent import watch

if TYPE_CHECKING:
    from collections.abc import Callable

UPDATES_MAX = 100_000


def multiplying() -> Callable[[], object]:
    """Something of torch to do in each update."""
    import torch

    matrix = torch.ones(8, 8)
    return lambda: matrix @ matrix


def main() -> None:
    """Train for ever, unless asked to stop."""
    run, pace_ms, file = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    work = multiplying() if "torch" in sys.argv else lambda: None
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
        work()
        mon.step()
        if mon.should_stop:
            break
    print(mon.update, flush=True)
    mon.close()


if __name__ == "__main__":
    main()
