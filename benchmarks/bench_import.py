"""What `import gradwatch_agent` costs, without torch: ms, wall and CPU, in fresh processes that take turns.

The baseline is the import of the standard modules and msgpack that `watch` needs; a trainer has nearly all of them anyway, as
torch does. They and our own come with the first call of `watch`, which is timed as well, without torch and after it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from table import Figure, arguments, median, print_table

NEEDED = "dataclasses, difflib, hashlib, inspect, logging, selectors, socket, threading, traceback, uuid, msgpack"
CONTESTANTS = {
    "import gradwatch_agent": ("", "import gradwatch_agent"),
    "what it needs": ("", f"import {NEEDED}"),
    "import gradwatch_agent after torch": ("import torch", "import gradwatch_agent"),
    "what the first watch() loads": ("import gradwatch_agent", "import gradwatch_agent.wiring"),
    "the same after torch": ("import torch, gradwatch_agent", "import gradwatch_agent.wiring"),
}
CODE = """
import json, sys, time
{before}
wall, cpu = time.perf_counter(), time.process_time()
{timed}
print(json.dumps([(time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3]))
assert {torch} == ("torch" in sys.modules) and "zmq" not in sys.modules
"""


def measure(before: str, timed: str) -> tuple[float, float]:
    """Wall and CPU ms of one import, from byte code as an installed package has it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    code = CODE.format(before=before, timed=timed, torch="torch" in before)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    rounds = 3 if args.quick else 15
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds + 1):
        for name, (before, timed) in CONTESTANTS.items():
            found = measure(before, timed)
            if number:  # the first one writes the byte code
                taken[name].append(found)
    figures = []
    for clock, at in (("wall", 0), ("CPU", 1)):
        baseline = ("what it needs", median([times[at] for times in taken["what it needs"]]))
        for name, times in taken.items():
            limit = 30.0 if name == "import gradwatch_agent" and clock == "wall" else None
            figures.append(Figure(f"{name}, {clock}", median([one[at] for one in times]), "ms", limit, baseline=baseline))
            figures.append(Figure(f"  fastest of {rounds}", min(one[at] for one in times), "ms"))
    print_table("import", figures, notes=[f"{rounds} rounds of fresh processes, median"], args=args)


if __name__ == "__main__":
    main()
