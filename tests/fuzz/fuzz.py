"""Fuzz the decoder or the gate: `python tests/fuzz/fuzz.py decode --seconds 60`, or `make fuzz` for both.

With atheris (extra `fuzz`: Linux, Python 3.11 on) it is guided by coverage, and inputs that reach further go into the corpus.
Without, or with `--count N`, known inputs are mutated at random, the same ones for a seed: what the tests do, and all there is
elsewhere.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def guided(target: str, seconds: int) -> None:
    """libFuzzer under atheris: ends the process, with 0 when nothing failed."""
    import atheris

    with atheris.instrument_imports(include=["gradwatch_contracts", "gradwatch_daemon.ingest", "msgpack"]):
        from harness import fuzzing
    folder = fuzzing.CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    drafts = Path(tempfile.mkdtemp(prefix="gradwatch-fuzz-"))
    for number, data in enumerate(fuzzing.seeds(target)):
        (drafts / str(number)).write_bytes(data)
    options = [f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={drafts}/", str(folder), str(drafts)], fuzzing.TARGETS[target])
    atheris.Fuzz()


def unguided(target: str, seed: int, count: int | None, seconds: int) -> int:
    """Corpus and mutations of it; how many inputs were run."""
    from harness import fuzzing

    known, done, deadline = fuzzing.corpus(target), 0, time.monotonic() + seconds
    for data in known:
        fuzzing.run(target, data)
        done += 1
    while done < (count if count is not None else sys.maxsize) and (count is not None or time.monotonic() < deadline):
        for data in fuzzing.mutations(known, min(1000, (count or sys.maxsize) - done), seed + done):
            fuzzing.run(target, data)
            done += 1
    return done


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", choices=("decode", "gate"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--count", type=int, help="this many inputs, not guided")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory-mb", type=int, help="address space of the process: an input that makes us grow ends it")
    args = parser.parse_args()
    if args.memory_mb is not None:
        resource.setrlimit(resource.RLIMIT_AS, (args.memory_mb * 2**20, args.memory_mb * 2**20))
    if args.count is None and importlib.util.find_spec("atheris"):
        guided(args.target, args.seconds)
        return
    if args.count is None:
        print("atheris is not installed: mutating known inputs at random, not guided by coverage", file=sys.stderr)
    print(f"{args.target}: {unguided(args.target, args.seed, args.count, args.seconds)} inputs, none failed")


if __name__ == "__main__":
    main()
