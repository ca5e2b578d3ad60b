"""`python -m benchmarks.scorecard.stand_in`: the rules of the KL on the corpus, judged by the mean over each update and by the
last minibatch in its place, as in a script that logs no other; what else a script does not give is left out of both.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.corpus.recording import read_case
from benchmarks.corpus.replay import derive, replay
from benchmarks.scorecard.__main__ import DATA
from gradwatch_contracts.needs import STAND_INS
from gradwatch_daemon.detect.catalogue import load_profile

if TYPE_CHECKING:
    from gradwatch_daemon.records import SignalKey

WHOLE, LAST = next(iter(STAND_INS.items()))
SEEN = ("grad.", "opt.", "param.", "episode.")
"""What a script without calls gives besides its scalars."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorecard.stand_in")
    parser.add_argument("cases", nargs="*", help="names of recorded cases; all without")
    wanted = parser.parse_args().cases
    profile = load_profile("default")
    print("| case | judged by | runs | updates | runs with an alert of the KL | kinds |\n|---|---|---|---|---|---|")
    for path in sorted(DATA.glob("*.corpus")):
        if wanted and path.stem not in wanted:
            continue
        recordings = read_case(path)
        for signal in (WHOLE, LAST):
            kinds: Counter[str] = Counter()
            alerted = 0

            def keep(key: SignalKey, signal: str = signal) -> bool:
                return key.name == signal or key.name.startswith(SEEN)

            for recording in recordings:
                alerts = replay(derive(recording, keep), profile, recording.updates_total, singly=False)
                found = {kind for alert in alerts for kind, _ in alert.kinds if kind.startswith("kl_")}
                alerted += bool(found)
                kinds.update(found)
            updates = sum(recording.updates for recording in recordings)
            listed = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
            print(f"| {path.stem} | `{signal}` | {len(recordings)} | {updates} | {alerted} | {listed} |", flush=True)


if __name__ == "__main__":
    main()
