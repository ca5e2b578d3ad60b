"""`gradwatch import`: real logs stored as runs, again and grown, broken and damaged; and what is said of them."""

from __future__ import annotations

import json
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.connection import Connection
from gradwatch_daemon.store.protocol import AnomalyFilter
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.command_line import CommandLine
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UPDATES = 8


@pytest.fixture(scope="module")
def sb3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a real PPO of Stable-Baselines3, with its progress.csv and its event file."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        from stable_baselines3 import PPO
        from stable_baselines3.common.logger import configure

        path = tmp_path_factory.mktemp("sb3") / "cartpole-ppo"
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, n_epochs=2, batch_size=32, seed=1, device="cpu")
        model.set_logger(configure(str(path), ["csv", "tensorboard"]))
        model.learn(64 * UPDATES)
        model.logger.close()
        torch.set_num_threads(threads)
    return path


@pytest.fixture
def gradwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line in an empty directory, where no daemon is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CommandLine(monkeypatch, capsys, tmp_path / "run")


def _imported(gradwatch: CommandLine, *argv: object) -> dict[str, Any]:
    ended = gradwatch("import", *argv, "--data-dir", "data", "--json")
    assert ended.out, ended.err
    document: dict[str, Any] = json.loads(ended.out)
    return document


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    """Opens the data directory when a test has filled it."""
    opened: list[SqliteStore] = []

    def open_store() -> SqliteStore:
        opened.append(SqliteStore.open(tmp_path / "data"))
        return opened[-1]

    yield open_store
    for each in opened:
        each.close()


def test_import_of_real_sb3_logs_gives_the_same_run_from_csv_and_from_events(gradwatch: CommandLine, sb3: Path) -> None:
    """Keys with their meaning; the two files hold the same numbers, the event file in float32."""
    events = next(sb3.glob("*tfevents*"))
    planned = ("--updates-total", UPDATES)
    table, stream = _imported(gradwatch, sb3, "--run", "a", *planned), _imported(gradwatch, events, "--run", "b", *planned)
    for found in (table, stream):
        assert (found["written_by"], found["rows"], found["attempts"]) == ("Stable-Baselines3 PPO", UPDATES - 1, [1])
        signals = {key["key"]: key["signal"] for key in found["keys"]}
        assert signals["train/entropy_loss"] == "policy.entropy.raw"
        assert signals["train/approx_kl"] == "user"
        assert not found["damage"]
        assert not found["oddities"]
        blind = {one["kind"] for one in found["replay"]["streams"][0]["standings"] if one["state"] == "blind"}
        assert {"kl_extreme", "nonfinite", "gradient_exploding"} <= blind
        assert found["replay"]["verdict"] == "inconclusive"
    for run in ("a", "b"):
        told = json.loads(gradwatch("replay", "data/", "--run", run, "--json", "--profile", "classic").out)
        seeing = {one["kind"] for one in told["streams"][0]["standings"] if one["state"] in ("armed", "firing")}
        assert "value_collapse" in seeing, run


def test_import_for_a_person_says_what_each_key_became(gradwatch: CommandLine, sb3: Path) -> None:
    """The name is that of the directory."""
    ended = gradwatch("import", sb3, "--data-dir", "data")
    assert ended.code == 0
    assert f"cartpole-ppo: {UPDATES - 1} updates, {UPDATES - 1} of them new, as attempt 1." in ended.out
    assert "train/entropy_loss → policy.entropy.raw (minus the mean entropy over all minibatches)" in ended.out
    assert "one line late" in ended.err
    assert "blind nonfinite" in ended.err


def test_import_again_adds_nothing_and_a_grown_log_only_what_is_new(gradwatch: CommandLine, sb3: Path, tmp_path: Path) -> None:
    """The same log is the same session."""
    grown = tmp_path / "grown" / "progress.csv"
    grown.parent.mkdir()
    lines = (sb3 / "progress.csv").read_text().splitlines(keepends=True)
    grown.write_text("".join(lines[:5]))
    shutil.copystat(sb3 / "progress.csv", grown)
    assert _imported(gradwatch, grown)["rows_new"] == 3
    grown.write_text("".join(lines))
    shutil.copystat(sb3 / "progress.csv", grown)
    second = _imported(gradwatch, grown)
    assert (second["rows"], second["rows_new"], second["attempts"]) == (UPDATES - 1, UPDATES - 4, [1])
    third = _imported(gradwatch, grown)
    assert (third["rows_new"], third["replay"]["rows"]) == (0, UPDATES - 1)


def test_import_of_a_run_with_nan_finds_it(gradwatch: CommandLine, sb3: Path, tmp_path: Path, store: Any) -> None:
    """NaN in the loss is at least one non-finite minibatch, in the update it is of."""
    header, *lines = (sb3 / "progress.csv").read_text().splitlines()
    place = header.split(",").index("train/loss")
    for number in (5, 6, 7):
        cells = lines[number].split(",")
        cells[place] = "nan"
        lines[number] = ",".join(cells)
    (tmp_path / "progress.csv").write_text("\n".join([header, *lines]) + "\n")
    found = _imported(gradwatch, tmp_path / "progress.csv", "--run", "broken")
    (key,) = [key for key in found["keys"] if key["key"] == "train/loss"]
    assert (key["nonfinite"], key["nonfinite_first"]) == (3, 4)
    assert found["replay"]["verdict"] == "findings"
    reader = store().reader()
    (anomaly,) = reader.anomalies(AnomalyFilter(run="broken"))
    assert (anomaly.kind, anomaly.severity.value, anomaly.update_onset) == ("nonfinite", "critical", 4)
    assert reader.escalations("broken") == []
    reader.close()


def test_imported_run_is_like_any_other_but_did_not_finish(gradwatch: CommandLine, sb3: Path, tmp_path: Path) -> None:
    """Nobody knows how the training ended; a daemon that starts on the directory shows it."""
    _imported(gradwatch, sb3)
    world = World(tmp_path / "data")
    view = world.view("cartpole-ppo")
    assert (view.run.state, view.rows, view.live) == ("imported", UPDATES - 1, False)  # type: ignore[attr-defined]
    assert view.run.labels["written_by"] == "Stable-Baselines3 PPO"  # type: ignore[attr-defined]
    signals = {summary.key.name for summary in world.reader.signals("cartpole-ppo", 1, 0)}
    assert {"value.explained_variance", "policy.clip_fraction", "opt.lr", "user"} <= signals
    world.close()


def test_import_touches_no_other_run(gradwatch: CommandLine, sb3: Path, tmp_path: Path) -> None:
    """Under other rules, the open anomalies of other runs stay open: nothing was learned of them."""
    (tmp_path / "data").mkdir(mode=0o700)
    world = World(tmp_path / "data")
    world.greet()
    nan = float("nan")
    world.tick(world.rows.samples(3, changed={"loss.total": (16.0, nan, nan), "loss.total.nonfinite": (16.0,)}))
    before = repr([*world.store.open_anomalies(), *world.store.runs()])
    assert world.store.open_anomalies()
    world.close()
    assert gradwatch("import", sb3, "--data-dir", "data", "--profile", "classic").code == 0
    world = World(tmp_path / "data", profile="default")
    after = repr([*world.store.open_anomalies(), *[run for run in world.store.runs() if run.run == "ant-ppo"]])
    assert after == before
    world.close()


def test_log_with_a_restart_is_two_attempts_and_both_come_again(gradwatch: CommandLine, tmp_path: Path) -> None:
    """Each its own session."""
    lines = [f"{step},{step / 10}" for step in (*range(1, 40), *range(5, 20))]
    (tmp_path / "progress.csv").write_text("\n".join(["step,a", *lines]) + "\n")
    first = _imported(gradwatch, tmp_path / "progress.csv", "--run", "twice")
    assert (first["attempts"], first["rows"], first["written_by"]) == ([1, 2], 54, "an unknown program")
    second = _imported(gradwatch, tmp_path / "progress.csv", "--run", "twice")
    assert (second["attempts"], second["rows_new"]) == ([1, 2], 0)
    assert [stream["rows"] for stream in second["replay"]["streams"]] == [39, 15]


def test_damaged_log_is_stored_as_far_as_it_goes_and_ends_with_11(gradwatch: CommandLine, sb3: Path, tmp_path: Path) -> None:
    """Said, counted, and never a silent 0."""
    events = next(sb3.glob("*tfevents*"))
    data = bytearray(events.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged = tmp_path / events.name
    damaged.write_bytes(data)
    ended = gradwatch("import", damaged, "--run", "damaged", "--data-dir", "data")
    assert ended.code == 11
    assert "Damaged: " in ended.err
    replayed = gradwatch("replay", damaged, "--allow-blind", "--gate", "critical")
    assert replayed.code == 11
    assert "Inconclusive: the log is damaged" in replayed.err


def test_replay_of_a_log_stores_nothing(gradwatch: CommandLine, sb3: Path, tmp_path: Path) -> None:
    """One command to judge an old run."""
    told = json.loads(gradwatch("replay", sb3 / "progress.csv", "--json").out)
    assert (told["run"], told["rows"]) == ("cartpole-ppo", UPDATES - 1)
    assert any("one line late" in note for note in told["notes"])
    assert not (tmp_path / "data").exists()
    assert gradwatch("replay", sb3 / "progress.csv", "--allow-blind").code in (0, 10)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("nowhere",), 5, "a directory with one of them"),
        (("progress.csv", "--map", "train/los=loss.total"), 2, "Did you mean train/loss?"),
        (("progress.csv", "--map", "train/loss=loss.totl"), 2, "Did you mean loss.total?"),
        (("progress.csv", "--map", "nonsense"), 2, "KEY=SIGNAL"),
        (("progress.csv", "--run", "Bad Name"), 2, "--run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_import_of_what_is_not_there_says_what_is(
    gradwatch: CommandLine, sb3: Path, tmp_path: Path, argv: tuple[str, ...], code: int, said: str
) -> None:
    """One sentence and the way on, no traceback."""
    shutil.copy(sb3 / "progress.csv", tmp_path)
    ended = gradwatch("import", *argv, "--data-dir", "data")
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_import_beside_a_daemon_that_wants_keys_is_refused_at_once(gradwatch: CommandLine, sb3: Path, tmp_path: Path) -> None:
    """It would wait for an answer that never comes."""
    (tmp_path / "run").mkdir(mode=0o700)
    connection = Connection("tcp://192.0.2.7:9471", "http://127.0.0.1:1", "", str(tmp_path / "data" / "token"), 1)
    file = tmp_path / "run" / "connection.json"
    file.write_text(connection.to_json())
    file.chmod(0o600)
    (tmp_path / "data").mkdir(mode=0o700)
    store = SqliteStore.open(tmp_path / "data")
    ended = gradwatch("import", sb3)
    store.close()
    assert ended.code == 5
    assert "registered keys" in ended.err
    assert gradwatch("import", sb3).code == 0  # nobody has the directory any more


def test_import_of_a_directory_above_logs_names_them(gradwatch: CommandLine, sb3: Path, tmp_path: Path) -> None:
    """Which one is meant is not guessed."""
    (tmp_path / "runs").mkdir()
    shutil.copytree(sb3, tmp_path / "runs" / "one")
    ended = gradwatch("import", tmp_path / "runs", "--data-dir", "data")
    assert ended.code == 5
    assert str(tmp_path / "runs" / "one") in ended.err


def test_log_without_numbers_is_imported_as_nothing_and_ends_with_11(gradwatch: CommandLine, tmp_path: Path) -> None:
    """No run is made of it."""
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    ended = gradwatch("import", "events.out.tfevents.1", "--run", "short", "--data-dir", "data")
    assert ended.code == 11
    assert "short: 0 updates" in ended.out
    replayed = gradwatch("replay", "events.out.tfevents.1")
    assert replayed.code == 11
    assert "there are no rows to replay" in replayed.err
