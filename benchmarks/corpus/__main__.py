"""`python -m benchmarks.corpus record | noise | table | subset`: make the corpus, and what is read off it."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from benchmarks.corpus.cases import CASES
from benchmarks.corpus.noise import UPDATES_MIN, noise_table
from benchmarks.corpus.recorder import record
from benchmarks.corpus.recording import read_case, write_case
from benchmarks.corpus.table import case_table

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).parent / "data"
SUBSET = ROOT / "tests" / "data" / "corpus"
INCOMPLETE = 11
MARK = re.compile(r"(<!-- cases -->\n).*?(<!-- /cases -->)", re.DOTALL)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description="The corpus of recorded runs.")
    parser.add_argument("--data", type=Path, default=DATA, help="directory of the recordings")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("record", help="record every run that is missing or stale; stop it and start it again as you like")
    verb.add_argument("--case", action="append", default=[], choices=list(CASES), help="only this case; may be repeated")
    verb.add_argument("--seeds", type=int, default=None, help="at most so many seeds of each case")
    verb.add_argument(
        "--first", type=int, default=1, help="the first seed; another one, with another --data, is a corpus no rule was set on"
    )
    verbs.add_parser("noise", help="measure the noise of every signal on the healthy runs; writes docs/noise.md")
    verbs.add_parser("table", help="write the table of cases into docs/corpus.md")
    verbs.add_parser("subset", help="copy the first seed of the cases that the tests replay")
    args = parser.parse_args()
    if args.verb == "record":
        print(f"{record(args.data, args.case, args.seeds, args.first)} runs recorded into {args.data}")
    elif args.verb == "noise":
        lines, updates = noise_table(args.data)
        (ROOT / "docs" / "noise.md").write_text("\n".join(lines) + "\n")
        print("\n".join(lines))
        return 0 if updates >= UPDATES_MIN else INCOMPLETE
    elif args.verb == "table":
        page = ROOT / "docs" / "corpus.md"
        page.write_text(MARK.sub(lambda match: match[1] + case_table() + "\n" + match[2], page.read_text()))
    else:
        for case in CASES.values():
            if not case.id.startswith("T"):
                write_case(SUBSET / f"{case.id}.corpus", read_case(args.data / f"{case.id}.corpus")[:1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
