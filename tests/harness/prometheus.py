"""A strict reader of the Prometheus text format 0.0.4: what a scraper may be lenient about is an error here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_NUMBER = r"NaN|[+-]Inf|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? ({_NUMBER})")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"(?:,|$)')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class ReadFamily:
    """One metric as it was read."""

    kind: str
    help: str
    samples: dict[Labels, float] = field(default_factory=dict)

    def value(self, **labels: str) -> float:
        """The one sample with exactly these labels."""
        return self.samples[tuple(sorted(labels.items()))]


def read_exposition(text: str) -> dict[str, ReadFamily]:
    """Metric name → family.

    Raises:
        ValueError: naming the line that is not allowed where it stands.
    """
    if not text.endswith("\n"):
        raise ValueError("the last line has no end")
    found: dict[str, ReadFamily] = {}
    current, help_of = "", {}
    for line in text[:-1].split("\n"):
        word, _, rest = line.partition(" ")
        if word == "#":
            mark, name, words = rest.split(" ", 2)
            if mark == "HELP" and name not in help_of and re.fullmatch(_NAME, name):
                help_of[name] = words
            elif mark == "TYPE" and name in help_of and name not in found and words in {"counter", "gauge"}:
                found[name] = ReadFamily(words, help_of[name])
                current = name
            else:
                raise ValueError(f"a comment out of place: {line!r}")
        else:
            _take_sample(line, current, found)
    return found


def _take_sample(line: str, current: str, found: dict[str, ReadFamily]) -> None:
    match = _SAMPLE.fullmatch(line)
    if match is None or match[1] != current:
        raise ValueError(f"no sample of {current!r}: {line!r}")
    labels = _labels(match[2] or "")
    if labels in found[current].samples:
        raise ValueError(f"a sample twice: {line!r}")
    found[current].samples[labels] = float(match[3])


def _labels(text: str) -> Labels:
    pairs, at = [], 0
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None:
            raise ValueError(f"labels: {text[at:]!r}")
        pairs.append((match[1], re.sub(r'\\[\\n"]', lambda escape: _ESCAPES[escape[0]], match[2])))
        at = match.end()
    if text.endswith(",") or len({name for name, _ in pairs}) != len(pairs):
        raise ValueError(f"labels: {text!r}")
    return tuple(sorted(pairs))
