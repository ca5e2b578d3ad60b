"""Logs of other programs as updates: whose keys mean what, which update a number is of, and what is odd about it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.columns import Kind, Schema, Status
from gradwatch_contracts.dialects import CLEANRL, DIALECTS, RLLIB, RLLIB_BOARD, RSL_RL, SB3, UNKNOWN, dialect_of
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.signals import COLUMNS, SIGNALS
from gradwatch_daemon.derive.derive import Deriver
from gradwatch_daemon.importing.points import Point
from gradwatch_daemon.importing.progress import read_progress
from gradwatch_daemon.importing.rows import assemble, moments, read_keys
from gradwatch_daemon.importing.session import messages_of
from gradwatch_daemon.ingest.gate import row_block
from gradwatch_daemon.records import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gradwatch_contracts.dialects import Dialect
    from gradwatch_daemon.importing.points import Log
    from gradwatch_daemon.importing.rows import LoggedRow

NAN = float("nan")


def _csv(tmp_path: Path, text: str) -> Log:
    file = tmp_path / "progress.csv"
    file.write_text(text)
    return read_progress(file)


def _points(lines: Sequence[tuple[int, Mapping[str, float]]]) -> list[Point]:
    return [Point(key, step, 1000.0 + step, value) for step, values in lines for key, value in values.items()]


def _signals(rows: Sequence[LoggedRow], dialect: Dialect, **given: str) -> dict[str, list[object]]:
    """What the daemon makes of rows: `signal[subject]` → values, a Status where there is none."""
    keys = list(dict.fromkeys([key for row in rows for key in row.values] + [dialect.episode] * bool(dialect.episode)))
    schema, *samples = messages_of(rows, read_keys(keys, dialect, given, Counter()), dialect, steps_known=True)
    assert isinstance(schema, m.SchemaMessage)
    found: dict[str, list[object]] = {}
    deriver = Deriver()
    for message in samples:
        assert isinstance(message, m.Samples)
        block = deriver.derive(row_block(Stream("r", 1, 0), "s", Schema.of(schema.columns), message))
        for key, values, status in zip(block.signals, block.values.tolist(), block.status.tolist(), strict=True):
            shown = f"{key.name}[{key.subject}]" if key.subject else key.name
            cells = [value if code == 0 else Status(code) for value, code in zip(values, status, strict=True)]
            found.setdefault(shown, []).extend(cells)
    return found


# -- progress.csv ---------------------------------------------------------------------------------------------------------


def test_progress_keeps_nan_and_tells_it_from_an_empty_cell(tmp_path: Path) -> None:
    """NaN was written; an empty cell was not."""
    log = _csv(tmp_path, "step,a,b\n1,nan,\n2,inf,3\n")
    assert repr([(p.key, p.step, p.value) for p in log.attempts[0] if p.key != "step"]) == repr(
        [("a", 1, NAN), ("a", 2, math.inf), ("b", 2, 3.0)]
    )
    assert not log.damage


def test_progress_with_bad_lines_and_cells_counts_them_and_reads_the_rest(tmp_path: Path) -> None:
    """A line of other width cannot be trusted cell by cell; a last one that is short was cut."""
    log = _csv(tmp_path, "step,a,a\n1,2,3\n2,2\n3,x,4\n\n4,5,6,7\n5,6\n")
    assert log.damage.counts == {"lines with another number of cells than the header": 2, "cells that are no numbers": 1}
    assert log.damage.words == ["the column 'a' is there 2 times; the last one is read"]
    assert log.damage.cut_short
    assert [(p.step, p.value) for p in log.attempts[0] if p.key == "a"] == [(1, 3.0), (3, 4.0)]


def test_progress_whose_step_falls_is_another_attempt(tmp_path: Path) -> None:
    """Two files put behind each other, or a restart."""
    log = _csv(tmp_path, "step,a\n1,1\n2,1\n1,1\n2,1\n3,1\n")
    assert [len(points) for points in log.attempts] == [4, 6]


@pytest.mark.parametrize("text", ["", "step,a\n", "nothing like it", "a\0b\n1\0,2\n"], ids=["empty", "header", "text", "zeros"])
def test_progress_without_numbers_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing to judge must not look like nothing wrong."""
    with pytest.raises(GradwatchError, match=r"progress\.csv") as refused:
        _csv(tmp_path, text)
    assert refused.value.code.slug == "recording-unreadable"


def test_progress_times_are_reckoned_back_from_the_file(tmp_path: Path) -> None:
    """The file has no clock of its own."""
    log = _csv(tmp_path, "time/time_elapsed,a\n10,1\n70,2\n")
    first, last = (p.wall_s for p in log.attempts[0] if p.key == "a")
    assert last - first == 60.0
    assert last == (tmp_path / "progress.csv").stat().st_mtime


# -- whose keys ----------------------------------------------------------------------------------------------------------


def test_every_mapped_signal_exists_and_names_its_reason() -> None:
    """A table that names what is not there would lose numbers silently."""
    for dialect in DIALECTS:
        for key, meaning in dialect.keys.items():
            assert meaning.why, key
            assert not meaning.signal or meaning.signal in SIGNALS or meaning.signal == "episode.return", key
            assert not meaning.nonfinite or COLUMNS[meaning.nonfinite].kind is Kind.COUNT, key


def test_dialect_needs_all_its_marks() -> None:
    """A script that borrows one name does not borrow the meaning."""
    assert dialect_of(["time/fps", "train/clip_fraction", "train/entropy_loss", "x"]) is SB3
    assert dialect_of(["train/clip_fraction", "train/entropy_loss", "train/approx_kl"]) is UNKNOWN
    assert dialect_of(["charts/SPS", "losses/clipfrac", "losses/approx_kl"]) is CLEANRL
    assert dialect_of(["losses/approx_kl", "charts/episodic_return"]) is UNKNOWN
    assert dialect_of(["Loss/learning_rate", "Perf/total_fps"]) is RSL_RL


def test_dialect_of_rllib_is_known_in_tables_and_in_tensorboard() -> None:
    """Ray writes the same keys with a path before them into TensorBoard files."""
    keys = ["learners/default_policy/mean_kl_loss", "learners/default_policy/vf_explained_var"]
    rate = "learners/default_policy/default_optimizer_learning_rate"
    for dialect, path in ((RLLIB, ""), (RLLIB_BOARD, "ray/tune/")):
        assert dialect_of([f"{path}{key}" for key in keys]) is dialect
        assert dialect.keys[f"{path}{rate}"].signal == "opt.lr"


@pytest.mark.parametrize(
    ("key", "dialect"),
    [("train/approx_kl", SB3), ("losses/entropy", CLEANRL), ("losses/old_approx_kl", CLEANRL), ("train/loss", SB3)],
    ids=str,
)
def test_key_over_another_window_is_no_signal_of_ours(key: str, dialect: Dialect) -> None:
    """Last epoch or last minibatch is not the whole update."""
    meaning, name = read_keys([key], dialect, {}, Counter())[key]
    assert (meaning.signal, name) == ("", key)


def test_keys_that_are_too_many_or_equal_are_left_out_and_counted() -> None:
    """A user key has a length and an alphabet; two may become one."""
    oddities: Counter[str] = Counter()
    keys = ["a:b", "a;b", *(f"k{number}" for number in range(300)), "/slash"]
    found = read_keys(keys, UNKNOWN, {}, oddities)
    assert found["a:b"][1] == "a_b"
    assert "a;b" not in found
    assert len(found) == 256
    assert sum(oddities.values()) == len(keys) - 256


# -- which update ---------------------------------------------------------------------------------------------------------


def _sb3(updates: int, *, log_interval: int = 1) -> list[tuple[int, dict[str, float]]]:
    """Dumps of SB3: iteration i has rollout facts of i and what training made of i - 1."""
    lines = []
    for iteration in range(log_interval, updates + 1, log_interval):
        values = {"time/fps": 100.0, "time/iterations": float(iteration), "rollout/ep_rew_mean": 10.0 + iteration}
        if iteration > 1:
            values |= {"train/entropy_loss": -0.1 * (iteration - 1), "train/clip_fraction": 0.2, "train/approx_kl": 0.01}
        lines.append((iteration * 2048, values))
    return lines


def test_sb3_train_keys_go_back_to_their_own_update() -> None:
    """The dump comes before `train()`, so they are written one line late, and the last is never written."""
    attempt = assemble(_points(_sb3(5)), SB3)
    assert [row.update for row in attempt.rows] == [0, 1, 2, 3]
    assert [row.values["rollout/ep_rew_mean"] for row in attempt.rows] == [11.0, 12.0, 13.0, 14.0]
    found = _signals(attempt.rows, SB3)
    assert found["policy.entropy.raw"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found["user[train/approx_kl]"] == pytest.approx([0.01] * 4)
    assert "policy.kl.k3" not in found
    assert "one line late" in attempt.notes[0]


def test_sb3_that_logged_some_updates_only_keeps_their_numbers_and_says_so() -> None:
    """`log_interval=4`: train keys are there from the first line on; the updates between are missing."""
    attempt = assemble(_points(_sb3(20, log_interval=4)), SB3)
    assert [row.update for row in attempt.rows] == [3, 7, 11, 15, 19]
    assert attempt.oddities == {"updates missing between two lines": 12}
    assert "not every update was logged" in attempt.notes[0]


def test_sb3_keys_of_an_evaluation_between_join_the_next_update() -> None:
    """EvalCallback dumps in the middle of a rollout, and takes what waits with it."""
    lines = _sb3(4)
    train = {key: lines[2][1].pop(key) for key in list(lines[2][1]) if key.startswith("train/")}
    lines.insert(2, (5000, {"eval/mean_reward": 7.0, **train}))
    attempt = assemble(_points(lines), SB3)
    assert [row.update for row in attempt.rows] == [0, 1, 2]
    assert attempt.rows[1].values["train/entropy_loss"] == pytest.approx(-0.2)
    assert attempt.rows[2].values["eval/mean_reward"] == 7.0


def test_cleanrl_episodes_are_those_of_the_update_they_ended_in() -> None:
    """Several may end at one step; what ends after the last update belongs to none."""
    lines: list[tuple[int, Mapping[str, float]]] = []
    for update in range(1, 4):
        lines += [(update * 512 - 100, {"charts/episodic_return": value}) for value in (10.0 * update, 20.0 * update)]
        lines.append((update * 512, {"losses/approx_kl": 0.01 * update, "losses/clipfrac": 0.1, "charts/SPS": 1.0}))
    lines.append((1600, {"charts/episodic_return": 99.0}))
    attempt = assemble(_points(lines), CLEANRL)
    found = _signals(attempt.rows, CLEANRL)
    assert found["episode.return.mean"] == [15.0, 30.0, 45.0]
    assert found["episode.return.std"] == [5.0, 10.0, 15.0]
    assert found["episode.count"] == [2.0, 2.0, 2.0]
    assert found["policy.kl.k3.last"] == pytest.approx([0.01, 0.02, 0.03])
    assert "policy.kl.k3" not in found
    assert attempt.oddities == {"numbers after the last whole update": 1}


def test_rsl_rl_steps_are_updates() -> None:
    """Its x axis is the iteration."""
    lines = [(step, {"Loss/entropy": 0.5, "Loss/learning_rate": 1e-3, "Perf/total_fps": 1.0}) for step in (7, 8, 11)]
    attempt = assemble(_points(lines), RSL_RL)
    assert [row.update for row in attempt.rows] == [7, 8, 11]
    assert attempt.oddities == {"updates missing between two lines": 2}
    assert _signals(attempt.rows, RSL_RL)["opt.lr"] == pytest.approx([1e-3] * 3)


def test_unknown_program_gives_scalars_of_the_user_and_gaps_by_its_step() -> None:
    """No meaning is guessed; a step that jumps by whole strides leaves updates out, another distance is odd."""
    lines = [(step, {"train/approx_kl": 0.5}) for step in (100, 200, 300, 600, 700, 750, 850)]
    attempt = assemble(_points(lines), UNKNOWN)
    assert [row.update for row in attempt.rows] == [0, 1, 2, 5, 6, 7, 8]
    assert attempt.oddities == {"updates missing between two lines": 2, "irregular distances between updates": 1}
    assert list(_signals(attempt.rows, UNKNOWN)) == ["user[train/approx_kl]"]


def test_repeated_and_disordered_numbers_are_counted() -> None:
    """The last one of a step is kept."""
    points = _points(
        [(1, {"a": 1.0}), (2, {"a": 2.0}), (2, {"a": 3.0}), (1, {"a": 4.0}), (-5, {"a": 9.0}), (1 << 63, {"a": 9.0})]
    )
    attempt = assemble(points, UNKNOWN)
    assert [(row.update, row.values["a"]) for row in attempt.rows] == [(1, 4.0), (2, 3.0)]
    assert attempt.oddities == {
        "numbers written twice for a step; the last one is kept": 1,
        "numbers out of order": 1,
        "numbers at an impossible step": 2,
    }


def test_log_without_a_whole_update_has_no_rows() -> None:
    """One dump of SB3: training was never logged."""
    assert assemble(_points(_sb3(1)), SB3).rows == []
    assert assemble([], UNKNOWN).rows == []


# -- what travels ---------------------------------------------------------------------------------------------------------


def test_nan_travels_as_nan_and_counts_where_it_proves_something() -> None:
    """A NaN loss is at least one non-finite minibatch; a finite one says nothing of the other minibatches."""
    lines = _sb3(6)
    for step, values in lines[1:]:
        values |= {"train/loss": NAN if step >= 4 * 2048 else 1.0, "train/value_loss": 1.0}
    lines[5][1]["train/approx_kl"] = NAN
    found = _signals(assemble(_points(lines), SB3).rows, SB3)
    assert repr(found["user[train/loss]"]) == repr([1.0, 1.0, NAN, NAN, NAN])
    assert found["loss.total.nonfinite"] == [Status.NOT_CALLED, Status.NOT_CALLED, 1.0, 1.0, 1.0]
    assert found["policy.logratio.nonfinite"] == [Status.NOT_CALLED] * 4 + [1.0]


def test_infinite_kl_is_no_proof_of_a_broken_ratio() -> None:
    """exp overflows on finite log-ratios: KL is infinite, the log-ratio is not."""
    lines = _sb3(3)
    lines[2][1]["train/approx_kl"] = math.inf
    assert "policy.logratio.nonfinite" not in _signals(assemble(_points(lines), SB3).rows, SB3)


def test_missing_cell_is_not_measured_and_never_zero() -> None:
    """Each with the status that says so."""
    lines = [(1, {"a": 1.0, "b": 2.0}), (2, {"a": 1.0}), (3, {"a": 1.0, "b": 2.0})]
    found = _signals(assemble(_points(lines), UNKNOWN).rows, UNKNOWN)
    assert found["user[b]"] == [2.0, Status.NOT_CALLED, 2.0]


def test_key_mapped_on_the_users_word_is_that_signal() -> None:
    """Whoever knows the program may say what a number is."""
    lines = [(step, {"my_kl": 0.01 * step}) for step in range(1, 4)]
    found = _signals(assemble(_points(lines), UNKNOWN).rows, UNKNOWN, my_kl="policy.kl.k3")
    assert found == {"policy.kl.k3": pytest.approx([0.01, 0.02, 0.03])}


@pytest.mark.parametrize("signal", [name for name, signal in SIGNALS.items() if not signal.spec.per])
def test_every_signal_may_travel_as_itself(signal: str) -> None:
    """A column of kind `last` with a signal's name is that signal, bit for bit in float32, and nothing else comes of it."""
    lines = [(step, {"k": 0.25 * step}) for step in range(3)]
    found = _signals(assemble(_points(lines), UNKNOWN).rows, UNKNOWN, k=signal)
    assert found[signal] == [0.0, 0.25, 0.5]
    assert len(found) == 1 or COLUMNS.get(signal) is not None


def test_moments_of_episodes_with_nan_are_nan() -> None:
    """Kept, not skipped."""
    assert moments([1.0, 3.0]) == (2.0, 2.0, 2.0)
    n, mean, m2 = moments([1.0, NAN])
    assert (n, mean != mean, m2 != m2) == (2.0, True, True)  # noqa: PLR0124 - NaN
