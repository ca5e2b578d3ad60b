"""Every signal of the registry, in every state a value can be in, from a row of the agent to REST and the command line.

A new signal joins by itself: the cases are made from the registry, the expected numbers by the scalar oracle below.
"""

from __future__ import annotations

import json
import math
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.columns import STATUS_REASON, WIDTH, Kind, Schema, Status
from gradwatch_contracts.signals import COLUMNS, SIGNALS
from gradwatch_daemon.cli.main import main
from harness.daemon_process import DaemonProcess, wait_for
from harness.small_agent import SmallAgent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "every-signal"
SUBJECT = "part"
SCHEMA = Schema.of([spec.column(SUBJECT if spec.per else "") for spec in COLUMNS.values()])

FILLS: dict[str, float] = {"measured": 0.37, "NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
CASES: list[str] = [*FILLS, *(status.name for status in Status if status is not Status.MEASURED)]
"""One update each."""


def _slots(name: str, fill: float) -> tuple[float, ...]:
    """A column whose quantity is `fill`; each column another value, so that a mix-up shows."""
    kind = COLUMNS[name].kind
    value = fill + list(COLUMNS).index(name) if math.isfinite(fill) else fill
    if kind is Kind.MOMENTS:
        return (8.0, value, 8.0 * value * value)
    if kind is Kind.MOMENTS4:
        return (8.0, value, 8.0 * value * value, 8.0 * value**3, 40.0 * value**4)
    return (value,)


def _expected(signal: str, case: str) -> float | str:
    """The number a case must give, or the name of the status that stands in its place.

    The formulas over scalars, written from the definitions in the registry.
    """
    if case not in FILLS:
        return case.lower()
    definition = SIGNALS[signal]
    first = _slots(definition.columns[0], FILLS[case])
    second = _slots(definition.columns[-1], FILLS[case])
    if definition.formula == "share" and second[0] <= 0:
        return "undefined"  # a limit below zero is no limit
    if definition.formula == "gradient_health":
        return _health(*[_slots(column, FILLS[case])[0] for column in definition.columns])
    if definition.formula == "explained_variance":
        return 1 - (first[2] / first[0]) / (second[2] / second[0])
    if definition.formula == "correlation":
        third = _slots(definition.columns[1], FILLS[case])
        covariance = (first[2] + third[2] - second[2]) / 2
        r = covariance / math.sqrt(first[2] * third[2])
        return r if math.isnan(r) else max(-1.0, min(1.0, r))
    if definition.formula == "envelope":
        sizes = [abs(_slots(column, FILLS[case])[0]) for column in definition.columns]
        return max(sizes[:2]) / max(sizes[2:])
    if definition.formula == "tail_index":
        return first[0] / (math.sqrt(second[2] / second[0]) * math.sqrt(2 * math.log(second[0])))
    return {
        "value": lambda: first[0],
        "mean": lambda: first[1],
        "negative_mean": lambda: -first[1],
        "std": lambda: math.sqrt(first[2] / first[0]),
        "rms": lambda: math.sqrt(first[2] / first[0] + first[1] ** 2),
        "count": lambda: first[0],
        "rate": lambda: first[0] / second[0],
        "share": lambda: first[1] / second[0],
        "quotient": lambda: first[0] / second[0],
        "mean_ratio": lambda: first[1] / second[1],
        "half_mean_square": lambda: (first[1] ** 2 + first[2] / first[0]) / 2,
        "effective_share": lambda: first[1] ** 2 / (first[1] ** 2 + first[2] / first[0]),
        "rms_rate": lambda: math.nan if first[0] == -math.inf else math.sqrt(first[0] / second[0]),
        "count_ratio": lambda: first[0] / second[0],
        "std_ratio": lambda: math.sqrt((first[2] / first[0]) / (second[2] / second[0])),
        "skew": lambda: (first[3] / first[0]) / (first[2] / first[0]) ** 1.5,
        "kurtosis": lambda: (first[4] / first[0]) / (first[2] / first[0]) ** 2,
        "nmse": lambda: (first[1] ** 2 + first[2] / first[0]) / (second[2] / second[0]),
    }[definition.formula]()


def _health(vanishing: float, exploding: float, tensors: float, nonfinite: float) -> float | str:
    if tensors <= 0:
        return "undefined"
    if nonfinite > 0:
        return 0.0
    health = 1 - (0.5 * vanishing + 0.8 * exploding) / tensors
    return 0.0 if health < 0 else health


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that has received one update per case."""
    home: Path = tmp_path_factory.mktemp("signals")
    with pytest.MonkeyPatch.context() as patch, DaemonProcess(home) as process:
        patch.setenv("GRADWATCH_RUNTIME_DIR", str(process.runtime_dir))
        agent = SmallAgent(RUN)
        for update, case in enumerate(CASES):
            fill = FILLS.get(case, 0.37)
            if case not in FILLS:
                # The agent leaves NaN in the slots of what it did not measure: nobody may look at it.
                fill = math.nan
            slots = [(fill,) * WIDTH[c.kind] if case not in FILLS else _slots(c.name, fill) for c in SCHEMA.columns]
            values = b"".join(struct.pack(f"<{len(s)}d", *s) for s in slots)
            status = 0 if case in FILLS else int(Status[case])
            agent.put(update, SCHEMA, values, bytes([status]) * len(SCHEMA.columns))
        agent.link.close(20)
        wait_for(lambda: (process.run(RUN) or {}).get("update_last") == len(CASES) - 1, "all cases to be stored")
        yield process


def _subject(signal: str) -> str:
    return SUBJECT if SIGNALS[signal].spec.per else ""


def _series(daemon: DaemonProcess, signal: str) -> Any:
    return daemon.get(f"/api/v1/runs/{RUN}/series?signal={signal}&subject={_subject(signal)}&points=1000")


@pytest.mark.parametrize("signal", sorted(SIGNALS))
def test_signal_in_every_state_reaches_rest(daemon: DaemonProcess, signal: str) -> None:
    """Measured, NaN and both infinities as values; every other status as null with its name."""
    answer = _series(daemon, signal)
    assert answer["update"] == list(range(len(CASES)))
    for case, last, status in zip(CASES, answer["last"], answer["status"], strict=True):
        expected = _expected(signal, case)
        assert (status, last is None) == ((expected, True) if isinstance(expected, str) else ("measured", False)), case
        if isinstance(expected, str):
            continue
        if math.isfinite(expected):
            assert last == pytest.approx(expected, rel=1e-6), case
        else:
            assert last == ("NaN" if math.isnan(expected) else "Infinity" if expected > 0 else "-Infinity"), case


@pytest.mark.parametrize("signal", sorted(SIGNALS))
def test_signal_in_every_state_reaches_the_command_line(
    daemon: DaemonProcess, signal: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--json` is what REST says; the table shows NaN as NaN and a missing value with its reason, never as a number."""
    for name in [name for name in os.environ if name.startswith("GRADWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GRADWATCH_RUNTIME_DIR", str(daemon.runtime_dir))
    subject = ["--subject", _subject(signal)] if _subject(signal) else []
    assert main(["series", RUN, signal, *subject, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == _series(daemon, signal)
    assert main(["series", RUN, signal, *subject]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.strip()[:1].isdigit()]
    assert len(rows) == len(CASES)
    for case, row in zip(CASES, rows, strict=True):
        expected = _expected(signal, case)
        if isinstance(expected, str):
            assert STATUS_REASON[Status[expected.upper()]] in row, case
        elif not math.isfinite(expected):
            assert ("NaN" if math.isnan(expected) else "Inf") in row, case


def test_signal_list_names_every_signal_of_the_registry(daemon: DaemonProcess) -> None:
    """Nothing derived is hidden."""
    items = daemon.get(f"/api/v1/runs/{RUN}/signals")["items"]
    assert {(item["signal"], item["subject"]) for item in items} == {(name, _subject(name)) for name in SIGNALS}
    assert {item["status"] for item in items} == {CASES[-1].lower()}
