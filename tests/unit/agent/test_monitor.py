"""The monitor as a trainer meets it: never in the way, and its last words arrive."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from gradwatch_agent import watch
from gradwatch_agent.collect.measurement import Measurement
from gradwatch_agent.collect.policy import PolicyCollector
from gradwatch_agent.exits import EXITS, Exits, describe
from gradwatch_contracts import limits
from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.signals import COLUMNS
from harness.recording import monitoring, read

if TYPE_CHECKING:
    from pathlib import Path


def test_monitor_calls_in_any_order_and_after_close_do_nothing_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """`step` without anything, `close` twice, everything after `close`."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    with monitoring() as (monitor, record):
        monitor.step()
        monitor.step()
        monitor.close()
        for _ in range(2):
            monitor.rollout(rewards=[1.0])
            monitor.ppo(loss=1.0)
            monitor.log(a=1.0)
            monitor.step()
            monitor.close()
    assert [row.update for row in record.rows] == [0, 1]
    assert monitor.update == 2


def test_monitor_arguments_without_names_are_told_once_and_never_raise(caplog: pytest.LogCaptureFixture) -> None:
    """`mon.ppo(logp, old)` is a mistake of the author and no reason to end a training."""
    with monitoring() as (monitor, record):
        for _ in range(2):
            monitor.ppo(torch.zeros(4), torch.zeros(4), loss=1.0)
            monitor.rollout([1.0])
        monitor.step()
        assert [line.partition("(")[0] for line in caplog.messages] == ["gradwatch: ppo", "gradwatch: rollout"]
        assert "2 without one are not measured" in caplog.text
        assert read(record.rows[0])["policy.logratio"] is Status.NOT_CALLED


def test_monitor_row_lists_every_column_of_the_registry() -> None:
    """Also what was not measured: absence must be seen."""
    with monitoring() as (monitor, record):
        monitor.step()
        names = {column.name for column in record.rows[0].schema.columns}
        assert {name for name, spec in COLUMNS.items() if not spec.per} == names


def test_monitor_update_numbers_start_where_the_trainer_says() -> None:
    """A run resumed from a checkpoint."""
    with monitoring(update_start=40) as (monitor, record):
        monitor.step()
        assert (record.rows[0].update, monitor.update) == (40, 41)


def test_monitor_measures_time_of_the_update_and_its_own() -> None:
    """Milliseconds; the agent's part is within the update's."""
    with monitoring() as (monitor, record):
        for _ in range(3):
            monitor.ppo(values=torch.zeros(4))
            monitor.step()
        row = record.last
        assert 0.0 < row["sys.agent_ms"] <= row["sys.update_ms"]
        assert [row.t_ns for row in record.rows] == sorted(row.t_ns for row in record.rows)


def test_monitor_counts_what_the_sender_thread_took_for_rows_as_its_own() -> None:
    """It is in the trainer's interpreter, too: told with the next update, and once."""
    with monitoring() as (monitor, record):
        monitor.step()
        record.made_ns += 700_000_000
        monitor.step()
        assert record.last["sys.agent_ms"] >= 700.0
        monitor.step()
        assert record.last["sys.agent_ms"] < 700.0


class BrokenError(Exception):
    """A bug of ours."""


def fail(*args: object, **kwargs: object) -> None:
    """Any function of ours, on a bad day."""
    raise BrokenError


@pytest.mark.parametrize(
    ("target", "column"),
    [
        ((PolicyCollector, "observe"), "policy.kl.k3"),
        ((Measurement, "rollout"), "reward.step"),
        ((Measurement, "_pack"), "param.norm"),
    ],
)
def test_monitor_own_failure_is_swallowed_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, target: tuple[type, str], column: str
) -> None:
    """Training goes on, the column says that it was us, an event carries the traceback, the next update is whole again."""
    network = nn.Linear(2, 1)
    with monitoring(modules=(network,)) as (monitor, record):
        with monkeypatch.context() as patch:
            patch.setattr(*target, fail)
            update(monitor)
        assert record.last[column] is Status.OUR_ERROR
        assert [(kind, "BrokenError" in text) for kind, _, text, _ in record.events] == [("agent_error", True)]
        update(monitor)
        assert not isinstance(record.last[column], Status)
        assert [row.update for row in record.rows] == [0, 1]
    assert len([line for line in caplog.records if line.levelno == logging.ERROR]) == 1


def update(monitor: Any) -> None:
    """A small update."""
    zeros = torch.zeros(4)
    monitor.rollout(rewards=zeros)
    monitor.ppo(new_logp=zeros, old_logp=zeros)
    monitor.step()


def test_monitor_own_failure_in_strict_mode_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our tests must not swallow our bugs."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    with monitoring() as (monitor, _):
        monkeypatch.setattr(PolicyCollector, "observe", fail)
        with pytest.raises(BrokenError):
            monitor.ppo()


def test_monitor_wrong_call_signature_is_swallowed() -> None:
    """Positional tensors, an unknown keyword: the trainer's mistake is not worth its training."""
    with monitoring() as (monitor, record):
        monitor.rollout(torch.zeros(3))  # type: ignore[call-arg]
        monitor.ppo(nonsense=1)
        monitor.log("text")  # type: ignore[arg-type]
        monitor.step()
        assert len(record.rows) == 1


def test_close_with_an_unfinished_update_sends_it_as_partial() -> None:
    """What was measured is measured; the rest is incomplete."""
    with monitoring() as (monitor, record):
        monitor.step()
        monitor.ppo(values=torch.ones(4))
    row = read(record.rows[-1])
    assert (record.rows[-1].update, record.rows[-1].flags) == (1, RowFlag.PARTIAL)
    assert row["value.new"] == (4.0, 1.0, 0.0)
    assert row["reward.step"] is Status.INCOMPLETE
    assert row["opt.update_ratio"] is Status.LEVEL


def test_close_between_updates_sends_no_partial_row() -> None:
    """Nothing was begun."""
    with monitoring() as (monitor, record):
        monitor.step()
    assert len(record.rows) == 1


def test_with_block_left_by_an_exception_tells_of_it() -> None:
    """The fatal update, then the exception with its traceback; the exception goes on."""
    with monitoring() as (monitor, record):
        monitor.ppo(values=torch.ones(4))
        with pytest.raises(ZeroDivisionError), monitor:
            _ = 1 / 0
    assert record.rows[-1].flags == RowFlag.PARTIAL
    ((kind, number, text, detail),) = record.events
    assert (kind, number, detail["type"], detail["message"]) == ("exception", 0, "ZeroDivisionError", "division by zero")
    assert "_ = 1 / 0" in text


def test_with_block_left_by_keyboard_interrupt_is_a_note() -> None:
    """A person stopped it; that is not a crash."""
    with pytest.raises(KeyboardInterrupt), monitoring() as (monitor, record), monitor:
        raise KeyboardInterrupt
    assert [kind for kind, *_ in record.events] == ["note"]


def test_traceback_is_cut_in_the_middle() -> None:
    """Head and tail say most."""
    try:
        raise ValueError("x" * 100_000 + "the end")
    except ValueError as error:
        text, detail = describe(error)
    assert len(text) <= limits.TRACEBACK_CHARS_MAX
    assert text.startswith("Traceback")
    assert text.endswith("the end\n")
    assert len(detail["message"]) == 1024


def test_exits_leave_no_hook_behind() -> None:
    """sys.excepthook is the trainer's again, unless another hook came on top."""
    exits, before = Exits(), sys.excepthook

    class Quiet:
        """A monitor that closes."""

        def close_with(self, error: BaseException | None, reason: str) -> None:
            """Nothing to do."""

    first, second = Quiet(), Quiet()
    exits.add(first)
    exits.add(second)
    assert sys.excepthook is not before
    exits.remove(first)
    exits.remove(first)
    exits.remove(second)
    assert sys.excepthook is before
    exits.add(first)
    ours = sys.excepthook
    above = functools.partial(ours)
    sys.excepthook = above
    exits.remove(first)
    assert sys.excepthook is above
    sys.excepthook = before


def test_watch_twice_for_one_run_and_model_is_one_monitor(tmp_path: Path) -> None:
    """Another run has its own; the same run with another model takes its place."""
    endpoint, network = f"ipc://{tmp_path}/none", nn.Linear(1, 1)
    first = watch(network, run="one", endpoint=endpoint)
    assert watch(network, run="one", endpoint=endpoint) is first
    other = watch(network, run="other", endpoint=endpoint)
    assert other is not first
    again = watch(nn.Linear(1, 1), run="one", endpoint=endpoint)
    assert again is not first
    assert not first.active
    for monitor in (other, again):
        monitor.close()
    assert EXITS.monitors == ()


def test_monitor_refused_by_the_daemon_becomes_inert() -> None:
    """A no-op from the next boundary on; hooks are gone."""
    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        monitor.refused = True
        monitor.step()
        assert not monitor.active
        assert len(optimizer._optimizer_step_pre_hooks) == 0
        monitor.step()
        assert len(record.rows) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_monitor_in_a_forked_child_is_inert(tmp_path: Path) -> None:
    """A DataLoader worker must neither report nor end the parent's run."""
    script = f"""
        import os, torch
        from gradwatch_agent import watch
        network = torch.nn.Linear(1, 1)
        monitor = watch(network, run="fork", endpoint="ipc://{tmp_path}/none")
        child = os.fork()
        if child == 0:
            monitor.ppo(loss=1.0); monitor.step(); monitor.close()
            os._exit(0 if not monitor.active and monitor.update == 0 else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        monitor.step()
        assert monitor.active and monitor.update == 1
        monitor.close()
        raise SystemExit(code)
    """
    assert run_script(script).returncode == 0


@pytest.mark.parametrize(
    ("end", "code"), [("raise ValueError('mine')", 1), ("raise SystemExit(7)", 7), ("pass", 0), ("import os; os._exit(3)", 3)]
)
def test_trainer_without_daemon_keeps_its_exit_code(tmp_path: Path, end: str, code: int) -> None:
    """Closed by nobody: exception, exit and end of the script."""
    script = f"""
        import torch
        from gradwatch_agent import watch
        network = torch.nn.Linear(1, 1)
        monitor = watch(network, run="end", endpoint="ipc://{tmp_path}/none")
        monitor.step()
        monitor.ppo(loss=1.0)
        {end}
    """
    done = run_script(script)
    assert done.returncode == code
    assert ("ValueError: mine" in done.stderr) == (code == 1)
    assert "gradwatch failed" not in done.stderr


def test_watch_of_host_scalars_needs_no_torch(tmp_path: Path) -> None:
    """A trainer of another framework can send its scalars; zmq is loaded by the thread alone."""
    script = f"""
        import sys
        sys.modules["torch"] = None
        import gradwatch_agent
        assert "zmq" not in sys.modules
        monitor = gradwatch_agent.watch(run="scalars", endpoint="ipc://{tmp_path}/none")
        monitor.log(a=1.0)
        monitor.step(env_steps=3, episode_returns=[1.0], b=2, c="text")
        monitor.close()
    """
    assert run_script(script, GRADWATCH_STRICT="1").returncode == 0


def run_script(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a trainer of a few lines."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
