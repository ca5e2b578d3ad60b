"""`python -m benchmarks.corpus record`: record what is missing or stale."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.corpus.cases import CASES
from benchmarks.corpus.recorder import record

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description="The corpus of recorded runs.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("record", help="record every run that is missing or stale; stop it and start it again as you like")
    verb.add_argument("--data", type=Path, default=DATA, help="directory of the recordings")
    verb.add_argument("--case", action="append", default=[], choices=list(CASES), help="only this case; may be repeated")
    verb.add_argument("--seeds", type=int, default=None, help="at most so many seeds of each case")
    args = parser.parse_args()
    count = record(args.data, args.case, args.seeds)
    print(f"{count} runs recorded into {args.data}")


main()
