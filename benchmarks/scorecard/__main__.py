"""`python -m benchmarks.scorecard`: score detection on the corpus; print it, and write it with `--write`.

Exit 0, or 11 where the corpus is too small to prove anything.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.corpus.recorder import run_key
from benchmarks.corpus.recording import CorpusError, corpus_hash
from benchmarks.scorecard.report import Scorecard, document, markdown, summary
from benchmarks.scorecard.runs import judge, load_runs
from benchmarks.scorecard.score import score
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "benchmarks" / "corpus" / "data"
HELD_OUT = ROOT / "benchmarks" / "corpus" / "held_out"
"""Recordings that no rule was set on."""

INCOMPLETE, USAGE = 11, 2
MARK = re.compile(r"(<!-- scorecard -->\n).*?(<!-- /scorecard -->)", re.DOTALL)


def make_card(directory: Path, normal: Path | None = None) -> Scorecard:
    """Load, replay and score; `normal` holds the recordings that say what is normal, else `directory` does.

    Raises:
        CorpusError: a recording cannot be read.
    """
    runs = load_runs(directory, normal)
    judged = judge(runs, _show)
    scores = tuple(score(*key, items, any_kind=key[0] not in PROFILES) for key, items in judged.items())
    stale = sum(run.recording.key != run_key(run.case, run.recording.seed) for run in runs)
    rules = {name: load_profile(name).rules_hash for name in PROFILES}
    return Scorecard(scores, tuple(runs), corpus_hash(directory), stale, rules, _commit())


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorecard", description="Recall, false alarms and delay.")
    parser.add_argument("--data", type=Path, default=DATA, help="directory of recordings")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument(
        "--write", action="store_true", help="write docs/scorecard.md, docs/scorecard.json and the README's lines"
    )
    args = parser.parse_args()
    try:
        card = make_card(args.data)
    except CorpusError as error:
        print(error, file=sys.stderr)
        return USAGE
    if not card.runs:
        print(f"{args.data} holds no recordings: run `python -m benchmarks.corpus record`", file=sys.stderr)
        return INCOMPLETE
    if args.data == DATA:
        card = replace(card, held_out=make_card(HELD_OUT, DATA))
    text, found = markdown(card), json.dumps(document(card), indent=1, allow_nan=False) + "\n"
    print(found if args.json else text)
    if args.write:
        (ROOT / "docs" / "scorecard.md").write_text(text)
        (ROOT / "docs" / "scorecard.json").write_text(found)
        readme = ROOT / "README.md"
        readme.write_text(MARK.sub(lambda match: match[1] + "\n".join(summary(card)) + "\n" + match[2], readme.read_text()))
    if card.missing:
        print(f"incomplete: {card.missing}", file=sys.stderr)
        return INCOMPLETE
    return 0


def _show(done: int, total: int) -> None:
    print(
        f"[{'#' * (30 * done // total):<30}] {done}/{total} runs replayed", end="\r" if done < total else "\n", file=sys.stderr
    )


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
