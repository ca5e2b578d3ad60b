"""Writes the pages of docs/ that follow from the registries, docs/openapi.json and the table of detectors in README.md.

`python docs/generate.py` writes; with `--check` it writes nothing and exits 1 when one of them is stale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gradwatch_contracts.collectors import COLLECTORS
from gradwatch_contracts.keyboard import KEYBOARD, Where
from gradwatch_contracts.signals import COLUMNS, SIGNALS, Stage
from gradwatch_daemon import __version__
from gradwatch_daemon.api.access import TokenBook
from gradwatch_daemon.api.app import create_api
from gradwatch_daemon.api.command_line import command_schemas
from gradwatch_daemon.api.context import ApiContext
from gradwatch_daemon.api.hub import Hub
from gradwatch_daemon.api.playbook import page_of
from gradwatch_daemon.catalogue import describe
from gradwatch_daemon.cli.reference import reference_page
from gradwatch_daemon.derive.formulas import FORMULAS
from gradwatch_daemon.detect.catalogue import CATALOGUE, PROFILES
from gradwatch_daemon.detect.extensions import load_rules
from gradwatch_daemon.records.rules import Measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gradwatch_contracts.signals import ColumnSpec, Signal
    from gradwatch_daemon.api.context import AuditLog
    from gradwatch_daemon.detect.spec import Spec
    from gradwatch_daemon.records.rules import Rule, Threshold, Vote
    from gradwatch_daemon.store.protocol import StoreReader

ROOT = Path(__file__).parents[1]
NOTICE = "<!-- Written by docs/generate.py from the registries: change those, then run `make docs`. -->"
BEGIN, END = "<!-- detectors: written by docs/generate.py -->", "<!-- end of detectors -->"

SIGNALS_INTRO = """\
# Signals

Every series a run can have. A signal is derived in the daemon from columns, which are what travels; the name is
`stage.subject.stat`, and a head, layer, phase or key is a field beside it, never a part of it.

- **estimator, window**: what exactly is computed, and over what. Libraries give one name to different numbers, so a threshold
  always names one of these. `r` is the probability ratio, new over old.
- **measured on**: the *rollout* once, every minibatch of the *update*, or the *host*.
- **from**: the call of the trainer that feeds it. `clip` is no call: it is what `clip_grad_norm_` or the optimizer's step
  shows by itself when `watch()` was given model and optimizer.
- **level**: the lowest telemetry level that collects it.

A value that is missing has a status that says why ([protocol.md](protocol.md)); it is never 0 and never NaN.
"""

DETECTORS_INTRO = """\
# Detectors

What the daemon looks for, in the order of causes: of two findings of one update, the first here is the root. All limits can
be set by `thresholds.KIND.KEY` in the configuration; `gradwatch detectors` lists those in force.

- Every comparison is **strict**: a value equal to its limit does not fire. Values are compared as stored, in float32.
- **over at** is the level at which a finding ends; between it and the limit it is held as it was.
- A threshold that gives no severity of its own is a part of a conjunction, spelled out in the formula.
- `z` is a robust score against the run's own usual values: (value - median) / (1.4826 MAD) over its last good updates, on a
  log scale for sizes and by odds for fractions. `times usual` is the value over that median, `times first` over the median of
  the run's first updates; `sum up` and `sum down` gather capped scores and find a shift that lasts.
- While a run **changes its regime** (the samples of an update, a learning rate that falls at once), what is relative is muted
  for 16 updates, says so, and learns anew. Invariants and backstops stay armed.
- A detector that lacks what it needs is **blind**, says why, and names the line to add. One that has seen too few updates is
  **learning**. Neither says anything about health.
"""


PLAYBOOK_INTRO = """\
# Playbook

One page for each kind of anomaly, for the person who was just woken by it: what it means, what to try in order of cost, what
it looks like and is not. A running daemon serves the same pages under `/playbook`, without a token, with the limits that are in
force there; every anomaly links to its own as `evidence.playbook`.
"""

COLLECTORS_INTRO = """\
## Collectors

What `watch(collect={name: False})` leaves out; all are on at first, and what is not listed is the core.

`watch(probe=trunk)` looks at representations. `trunk` is a module or function of a batch of observations, best the
`torch.nn.Sequential` that makes the features: then every child is a layer of its own, named by its number. The batch is
given as `probe=(trunk, batch)`, or 128 observations of the first `rollout()` are kept, so that it stays the same. It is
called at `step()`, in evaluation mode, without gradients, on copies of the buffers and without hooks, ours or yours, at any
depth, so that no running statistic meets it and a compiled model is not traced anew; modes and random numbers are put
back. What a layer keeps elsewhere, as in a plain number or in an object that is no module, does change: leave such a layer
out of the probe. A module that is spread over ranks (FSDP) is not looked at, as its forward pass
would be a collective.
"""


def signals_page() -> str:
    """docs/signals.md."""
    parts = [NOTICE, SIGNALS_INTRO]
    for stage in Stage:
        signals = [signal for signal in SIGNALS.values() if signal.stage is stage]
        if signals:
            parts += [f"## {stage.value}\n", _table(_SIGNAL_HEADS, map(_signal_row, signals))]
    columns = _table(
        ("column", "kind", "ranks combine by", "measured on", "level", "from", "one for each"), map(_column_row, _columns())
    )
    formulas = _table(("formula", "value"), ((f"`{name}`", _first_line(f.function.__doc__)) for name, f in FORMULAS.items()))
    parts += [
        "## Columns\n\nWhat the agent sends.\n",
        columns,
        COLLECTORS_INTRO,
        _table(("collector", "level", "costs", "columns"), map(_collector_row, COLLECTORS)),
        "## Formulas\n\n`a` is the first column, `b` the second.\n",
        formulas,
    ]
    return "\n".join(parts)


_SIGNAL_HEADS = ("signal", "unit", "sign", "estimator", "window", "measured on", "level", "from", "columns", "formula")


def _signal_row(signal: Signal) -> tuple[str, ...]:
    spec = signal.spec
    each = f" for each {spec.per}" if spec.per else ""
    columns = ", ".join(f"`{name}`" for name in signal.columns)
    return (
        f"`{signal.name}`{each}",
        signal.unit.value,
        signal.sign,
        signal.estimator,
        signal.window,
        spec.source.value,
        spec.level.name.lower(),
        f"`{spec.call}`",
        columns,
        f"`{signal.formula}`",
    )


def _columns() -> Iterable[ColumnSpec]:
    return COLUMNS.values()


def _column_row(spec: ColumnSpec) -> tuple[str, ...]:
    level = spec.level.name.lower()
    return (
        f"`{spec.name}`",
        spec.kind.value,
        spec.rank_rule.value,
        spec.source.value,
        level,
        f"`{spec.call}`",
        spec.per or "run",
    )


def _collector_row(name: str) -> tuple[str, ...]:
    collector = COLLECTORS[name]
    columns = ", ".join(f"`{column}`" for column in collector.columns)
    return f"`{name}`", collector.level.name.lower(), collector.cost.value, columns


def detectors_page() -> str:
    """docs/detectors.md."""
    rows = (
        (f"[{spec.kind}](#{spec.kind})", spec.title, *(_worst(spec.rule(p)) if p in spec.profiles else "" for p in PROFILES))
        for spec in CATALOGUE
    )
    parts = [NOTICE, DETECTORS_INTRO, _table(("kind", "title", *PROFILES), rows)]
    return "\n".join([*parts, *map(_section, CATALOGUE)])


def _worst(rule: Rule) -> str:
    return max((vote.gives for vote in rule.votes), key=lambda severity: severity.rank).value


def _section(spec: Spec) -> str:
    explains = ", ".join(spec.explains)
    about = [f"## {spec.kind}\n", f"**{spec.title}.** {spec.meaning}\n"]
    if explains:
        about.append(f"May be the cause of: {'every other kind' if explains == '*' else explains}.\n")
    profiles = [_profile(spec.rule(name)) for name in PROFILES if name in spec.profiles]
    tries = "\n".join(f"{place}. {step}" for place, step in enumerate(spec.tries, 1))
    rest = [f"**Fails when.** {spec.fails_when}\n", f"**Try.**\n\n{tries}\n", f"**Source.** {spec.source}\n"]
    return "\n".join([*about, *profiles, *rest])


def _profile(rule: Rule) -> str:
    """One profile of a detector: formula, thresholds, votes, warm-up, needs."""
    warm_up = f"{rule.warm_up} measured updates" if rule.warm_up else "none"
    over = "1 clear update" if rule.keep_firing == 1 else f"{rule.keep_firing} clear updates in a row"
    votes = "; ".join(map(_vote, rule.votes))
    parts = [f"### {rule.kind} in `{rule.profile}`\n", f"Fires when: {rule.formula}.\n"]
    if rule.thresholds:
        heads = ("key", "signal", "breach", "over at", "alone gives", "quantity")
        parts.append(_table(heads, map(_threshold_row, rule.thresholds)))
    parts.append(f"Votes: {votes}. Over after {over}. Warm-up: {warm_up}.\n")
    if rule.needs:
        rows = ((f"`{n.signal}`", n.add, "sees less" if n.optional else "blind", n.undefined or "") for n in rule.needs)
        parts.append(_table(("needs", "line to add", "without it", "where it is not defined"), rows))
    return "\n".join(parts)


def _vote(vote: Vote) -> str:
    """`warning after 2 of 3 updates at warning or above`."""
    return f"{vote.gives.value} after {vote.k} of {vote.n} updates at {vote.at.value} or above"


def _threshold_row(threshold: Threshold) -> tuple[str, ...]:
    unit = f" {threshold.unit}" if threshold.unit and threshold.measure is Measure.VALUE else ""
    compared = "" if threshold.measure is Measure.VALUE else f"{threshold.measure.value} "
    about = f"`{threshold.signal}`" if threshold.signal else ""
    about += f" ({threshold.series})" if threshold.series else ""
    back = "≤" if threshold.op == ">" else "≥"
    return (
        f"`{threshold.key}`",
        about,
        f"{compared}{threshold.op} {threshold.limit:g}{unit}",
        f"{back} {threshold.back:g}{unit}",
        threshold.severity.value if threshold.severity else "",
        threshold.quantity,
    )


KEYBOARD_INTRO = """\
# Keyboard

The dashboard and `gradwatch top` share these keys. No key is taken while a modifier is held or while somebody types.
"""


def keyboard_page() -> str:
    """docs/keyboard.md."""
    said = {Where.BOTH: "dashboard, top", Where.WEB: "dashboard", Where.TOP: "top"}
    rows = ((f"`{'Space' if entry.key == ' ' else entry.key}`", entry.what, said[entry.where]) for entry in KEYBOARD)
    return "\n".join([NOTICE, KEYBOARD_INTRO, _table(("key", "does", "in"), rows)])


PLACES = {
    Stage.OBS: "observations, any tensor",
    Stage.REWARD: "rewards",
    Stage.VALUE: "critic",
    Stage.ADV: "advantages",
    Stage.POLICY: "policy",
    Stage.GRAD: "gradients",
    Stage.PARAM: "representation",
    Stage.OPT: "optimizer",
    Stage.RNN: "memory of the policy",
    Stage.EPISODE: "returns",
    Stage.SYS: "machine",
    Stage.TELEM: "telemetry, ranks",
}
"""Where something is found, in the words of README.md and in causal order."""


def readme_table() -> str:
    """The table of README.md: the kinds of the profile `default` by where they are found."""
    found = {place: [spec for spec in CATALOGUE if spec.stage is stage] for stage, place in PLACES.items()}
    rows = (
        (place, ", ".join(f"[`{spec.kind}`](docs/detectors.md#{spec.kind})" for spec in specs))
        for place, specs in found.items()
    )
    if sum(len(specs) for specs in found.values()) != len(CATALOGUE):
        raise SystemExit("docs/generate.py: PLACES lacks a stage that a detector has")
    return _table(("in", "what is found"), rows)


def readme(text: str) -> str:
    """README.md with its table written anew."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md: expected the lines {BEGIN!r} and {END!r} around the table of detectors")
    return f"{head}{BEGIN}\n\n{readme_table()}\n{END}{tail}"


def playbook() -> dict[Path, str]:
    """docs/playbook/: the pages that a daemon serves, with the profile `default`."""
    folder, catalogue = ROOT / "docs" / "playbook", describe(load_rules("default", {}))
    heads = ("kind", "what happened", "at worst")
    rows = ((f"[`{info.kind}`]({info.kind}.md)", info.title, info.severity.value) for info in catalogue)
    index = f"{NOTICE}\n{PLAYBOOK_INTRO}\n{_table(heads, rows)}"
    pages = {folder / f"{info.kind}.md": f"{page_of(info)}\n{_more(info.kind)}\n" for info in catalogue}
    listed = "\n".join(f"{info.kind}" for info in catalogue)
    return {**pages, folder / "index.md": f"{index}\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"}


def _more(kind: str) -> str:
    return f"All limits, in both profiles: [detectors.md](../detectors.md#{kind})."


def openapi() -> str:
    """docs/openapi.json: what a daemon answers at /openapi.json."""
    document = create_api(_nothing_behind()).openapi()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _nothing_behind() -> ApiContext:
    """A context that is never asked: the document needs the routes alone."""

    def unused(*_: object) -> Any:
        raise AssertionError("nothing is served here")

    return ApiContext(
        snapshots=unused,
        reader=cast("StoreReader", None),
        submit=unused,
        hub=Hub("docs"),
        book=TokenBook(""),
        audit=cast("AuditLog", None),
        keyring=None,
        allowed_hosts=(),
        ready=unused,
        health=unused,
        catalogue=(),
        version=__version__,
    )


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped, or |r - 1| would be three cells."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def pages() -> dict[Path, str]:
    """Every file this script writes, with the text it should have."""
    path = ROOT / "README.md"
    return {
        ROOT / "docs" / "signals.md": signals_page(),
        ROOT / "docs" / "detectors.md": detectors_page(),
        ROOT / "docs" / "keyboard.md": keyboard_page(),
        ROOT / "docs" / "openapi.json": openapi(),
        ROOT / "docs" / "cli.md": f"{NOTICE}\n{reference_page()}",
        **{ROOT / "docs" / "cli-schemas" / f"{verb}.json": text for verb, text in command_schemas().items()},
        **playbook(),
        path: readme(path.read_text(encoding="utf-8")),
    }


def stale() -> list[Path]:
    """The files that differ from what this script would write."""
    return [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main(arguments: Sequence[str]) -> int:
    """Write, or with `--check` only compare."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    changed, texts = stale(), pages()
    for path in changed:
        if arguments:
            print(f"{path.relative_to(ROOT)} is stale: run `make docs`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if arguments and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
