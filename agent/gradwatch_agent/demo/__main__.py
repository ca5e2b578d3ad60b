"""`python -m gradwatch_agent.demo`: what `gradwatch demo` runs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from gradwatch_agent.demo.driver import Demo, print_result
from gradwatch_agent.demo.faults import FAULTS, TRAINERS
from gradwatch_agent.demo.narration import Narration

AS_EXPECTED, OTHERWISE = 0, 10


def main(arguments: list[str] | None = None) -> int:
    """Play the demo; 0 when the planted fault was found (or nothing, when nothing was planted), else 10."""
    parser = argparse.ArgumentParser("gradwatch demo", description="Train PPO, break it, and watch.")
    parser.add_argument("--fault", choices=sorted(FAULTS), default="ratio")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--pace-ms", type=int, default=None, help="pause per update (default: 60, with --json: 0)")
    parser.add_argument("--keep", default="", metavar="DIR", help="keep the daemon's data and log in this directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    parser.add_argument("--trainer", choices=sorted(TRAINERS), default=None, help="with --fault none: which trainer")
    given = parser.parse_args(arguments)
    pace_ms = given.pace_ms if given.pace_ms is not None else 0 if given.json else 60
    fault = FAULTS[given.fault]
    if given.trainer:
        if fault.expected:
            parser.error(f"--fault {fault.name} breaks {fault.trainer}; --trainer is for --fault none")
        fault = replace(fault, trainer=given.trainer)
    if not given.updates > 0 or (fault.expected and given.updates <= fault.update):
        parser.error(f"--updates must be above {fault.update}, where the fault begins")
    narration = Narration(quiet=given.json)
    demo = Demo(fault, given.seed, updates=given.updates, pace_ms=pace_ms, keep=given.keep, narration=narration)
    result = demo.play()
    if given.json:
        print_result(result)
    narration.verdict(result, fault, given.keep)
    return AS_EXPECTED if result["as_expected"] else OTHERWISE


if __name__ == "__main__":
    sys.exit(main())
