"""`gradwatch export`: what is in a file is what was stored, and a bundle replays to the same anomaly."""

from __future__ import annotations

import csv
import json
import math
import sqlite3
import struct
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.columns import Status
from gradwatch_daemon.exporting.flat import column_name
from gradwatch_daemon.store.extract import extract_run
from gradwatch_daemon.store.recording import RecordingReader
from gradwatch_daemon.store.schema import MIGRATIONS
from harness.command_line import CommandLine
from harness.exported import anomaly_of, write_two_runs

if TYPE_CHECKING:
    from pathlib import Path

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def gradwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line in an empty directory, where no daemon is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CommandLine(monkeypatch, capsys, tmp_path / "run")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """See `write_two_runs`."""
    return write_two_runs(tmp_path / "data")


def _stored(data: Path, run: str) -> list[tuple[int, dict[str, Any]]]:
    """(update, cells by column: the bits of a value, or the name of its status) as the store has them."""
    found = []
    with closing(RecordingReader(data)) as reader:
        for recorded in reader.every_stream(run):
            for block in reader.blocks(recorded):
                for place, update in enumerate(block.update.tolist()):
                    cells: dict[str, Any] = {}
                    for signal, key in enumerate(block.signals):
                        status = Status(int(block.status[signal, place]))
                        measured = status is Status.MEASURED
                        cells[column_name(key)] = _bits(float(block.values[signal, place])) if measured else status.name.lower()
                    found.append((update, cells))
    return found


def _bits(value: float) -> bytes:
    """Of the float32; every NaN is one."""
    return b"nan" if math.isnan(value) else struct.pack("<f", value)


def _parsed(text: str) -> float:
    return {"NaN": NAN, "Infinity": INF, "-Infinity": -INF}.get(text) or float(text)


def test_export_of_neither_a_run_nor_an_anomaly_exits_3_and_names_the_nearest(gradwatch: CommandLine, data: Path) -> None:
    """And leaves no file behind."""
    ended = gradwatch("export", "ant-pp", "--data-dir", data)

    assert ended.code == 3
    assert "Did you mean ant-ppo?" in ended.err
    assert not (data.parent / "ant-pp.html").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "--backup FILE the whole store"),
        (("ant-ppo", "--backup", "x.db"), "--backup FILE the whole store"),
        (("--backup", "x.db", "--format", "csv"), "--backup is a format of its own"),
        (("ant-ppo", "--format", "zip", "--from", "3"), "A bundle holds the whole run"),
        (("ant-ppo", "--out", "-"), "Only csv and jsonl"),
        (("ant-ppo", "--from", "9", "--to", "3"), "--from 9 is after --to 3"),
        (("ant-ppo", "--format", "xlsx"), "invalid choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_export_arguments_that_do_not_go_together_exit_2(gradwatch: CommandLine, argv: tuple[str, ...], said: str) -> None:
    """Before anything is read."""
    ended = gradwatch("export", *argv)

    assert ended.code == 2
    assert said in ended.err


def test_backup_of_a_daemon_elsewhere_is_refused_and_names_what_to_do(
    gradwatch: CommandLine, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store at hand is not the one that GRADWATCH_URL is about; with --data-dir it is said which is meant."""
    monkeypatch.setenv("GRADWATCH_URL", "https://gpu-17.example:9440")

    ended = gradwatch("export", "--backup", "all.db")
    assert ended.code == 2
    assert "--data-dir" in ended.err
    assert not (tmp_path / "all.db").exists()

    assert gradwatch("export", "--backup", tmp_path / "all.db", "--data-dir", data).code == 0
    assert (tmp_path / "all.db").exists()


def test_export_never_writes_over_a_file(gradwatch: CommandLine, data: Path, tmp_path: Path) -> None:
    """Exit 5, the file as it was, no draft beside it."""
    (tmp_path / "mine.csv").write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.iterdir())

    ended = gradwatch("export", "ant-ppo", "--out", "mine.csv", "--data-dir", data)

    assert ended.code == 5
    assert (tmp_path / "mine.csv").read_text(encoding="utf-8") == "mine"
    assert sorted(tmp_path.iterdir()) == before


def test_parquet_without_pyarrow_exits_2_and_names_the_extra(
    gradwatch: CommandLine, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other formats need nothing."""
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "gradwatch_daemon.exporting.parquet", raising=False)

    ended = gradwatch("export", "ant-ppo", "--format", "parquet", "--data-dir", data)

    assert ended.code == 2
    assert 'pip install -e ".[parquet]"' in ended.err


def test_jsonl_has_every_stored_value_bit_for_bit_and_every_reason(gradwatch: CommandLine, data: Path, tmp_path: Path) -> None:
    """NaN, infinities, and why a value is missing; times and levels are those stored."""
    document = json.loads(gradwatch("export", "ant-ppo", "--format", "jsonl", "--data-dir", data, "--json").out)
    rows = [json.loads(line) for line in (tmp_path / "ant-ppo.jsonl").read_text(encoding="utf-8").splitlines()]
    read = []
    for row in rows:
        values = {name: _bits(_parsed(value) if isinstance(value, str) else value) for name, value in row["values"].items()}
        read.append((row["update"], {**values, **row["missing"]}))

    stored = _stored(data, "ant-ppo")
    assert read == stored
    assert document["rows"] == len(stored) == 1112
    assert document["coverage"] == {"received": 1112, "lost": 4, "share": 1112 / 1116, "thinned": 0}
    cells = [cell for _, row in stored for cell in row.values()]
    assert {b"nan", _bits(INF), "not_called"} <= set(cells)
    assert (rows[0]["run"], rows[0]["attempt"], rows[0]["rank"], rows[0]["level"], rows[0]["flags"]) == (
        "ant-ppo",
        1,
        0,
        "normal",
        [],
    )


def test_csv_has_every_stored_value_and_its_reason_in_the_last_column(gradwatch: CommandLine, data: Path) -> None:
    """An empty cell always has its reason."""
    ended = gradwatch("export", "ant-ppo", "--format", "csv", "--out", "-", "--data-dir", data)
    rows = list(csv.DictReader(ended.out.splitlines()))
    read = []
    for row in rows:
        missing = dict(pair.split("=") for pair in row["missing"].split(";"))
        cells = {name: _bits(_parsed(row[name])) for name in list(row)[8:-1] if row[name]}
        read.append((int(row["update"]), {**cells, **missing}))

    assert ended.err == "1112 rows.\n"
    assert read == _stored(data, "ant-ppo")


def test_parquet_tells_null_from_nan_and_keeps_reasons_and_units(gradwatch: CommandLine, data: Path, tmp_path: Path) -> None:
    """As another program reads it, through pyarrow."""
    import pyarrow.parquet as pq

    assert gradwatch("export", "ant-ppo", "--out", "rows.parquet", "--data-dir", data).code == 0
    table = pq.read_table(tmp_path / "rows.parquet")
    read = []
    for row in table.to_pylist():
        cells = {name: _bits(value) for name, value in list(row.items())[8:-1] if value is not None}
        read.append((row["update"], {**cells, **dict(row["missing"])}))

    assert read == _stored(data, "ant-ppo")
    assert table.schema.field("policy.kl.k3").metadata[b"unit"] == b"nats"


def test_table_of_an_anomaly_is_what_lies_around_it(gradwatch: CommandLine, data: Path) -> None:
    """A hundred updates before; `--from` and `--to` say otherwise."""
    id_ = anomaly_of(data)
    around = gradwatch("export", id_, "--format", "jsonl", "--out", "-", "--data-dir", data).out.splitlines()
    asked = gradwatch(
        "export", id_, "--format", "jsonl", "--out", "-", "--from", "1100", "--to", "1101", "--data-dir", data
    ).out

    assert gradwatch("export", id_[:6], "--format", "jsonl", "--out", "-", "--data-dir", data).out.splitlines() == around
    updates = [json.loads(line)["update"] for line in around]
    assert 100 <= len(updates) < 1112
    assert [json.loads(line)["update"] for line in asked.splitlines()] == [1100, 1101]


def test_bundle_replays_to_the_same_anomalies_bit_for_bit(gradwatch: CommandLine, data: Path, tmp_path: Path) -> None:
    """Without being told the rules: they are in it. The live record is in it too, so that `--diff live` proves it."""
    live = gradwatch("replay", "ant-ppo", "--data-dir", data, "--profile", "classic", "--diff", "live", "--json")
    assert gradwatch("export", anomaly_of(data), "--format", "zip", "--out", "case.zip", "--data-dir", data).code == 0
    bundle = gradwatch("replay", tmp_path / "case.zip", "--diff", "live", "--json")

    expected, found = json.loads(live.out), json.loads(bundle.out)
    assert bundle.code == 10
    assert found["items"]
    for document in (expected, found):
        del document["seconds"]
    assert found == expected
    difference = found["difference"]
    assert (difference["new"], difference["lost"], difference["moved"], difference["changed"]) == ([], [], [], [])
    assert difference["same"] == len(found["items"])


def test_bundle_keeps_thresholds_that_differ_and_takes_others_over_them(
    gradwatch: CommandLine, data: Path, tmp_path: Path
) -> None:
    """A run that was judged with numbers of its own is replayed with them."""
    rules = tmp_path / "rules.toml"
    rules.write_text('profile = "classic"\n[thresholds.ratio_explosion]\nmax = 1.2\n', encoding="utf-8")
    quiet = ("export", "quiet", "--format", "zip", "--data-dir", data)
    assert gradwatch(*quiet, "--config", rules, "--out", "own.zip").code == 0

    own = json.loads(gradwatch("replay", tmp_path / "own.zip", "--json").out)
    over = json.loads(gradwatch("replay", tmp_path / "own.zip", "--set", "ratio_explosion.max=9", "--json").out)
    other = json.loads(gradwatch("replay", tmp_path / "own.zip", "--profile", "default", "--json").out)

    assert [item["kind"] for item in own["items"]] == ["ratio_explosion"]
    assert over["items"] == []
    assert other["profile"] == "default"


def test_bundle_holds_nothing_of_other_runs(gradwatch: CommandLine, data: Path, tmp_path: Path) -> None:
    """It is given to others."""
    assert gradwatch("export", "quiet", "--format", "zip", "--data-dir", data).code == 0

    with zipfile.ZipFile(tmp_path / "quiet.zip") as archive:
        manifest = json.loads(archive.read("manifest.json"))
        inside = b"".join(archive.read(name) for name in archive.namelist())

    assert sorted(manifest["sha256"]) == ["anomalies.jsonl", "gradwatch.db", "report.html"]
    assert b"ant-ppo" not in inside


def test_damaged_or_foreign_bundle_exits_5_and_says_so(gradwatch: CommandLine, data: Path, tmp_path: Path) -> None:
    """A changed database, another zip file, a later version."""
    assert gradwatch("export", "quiet", "--format", "zip", "--data-dir", data).code == 0
    with zipfile.ZipFile(tmp_path / "quiet.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}

    def written(name: str, changed: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for inside, content in {**files, **changed}.items():
                archive.writestr(inside, content)
        return tmp_path / name

    later = {**json.loads(files["manifest.json"]), "version": 2}
    cases = {
        "changed.zip": ({"gradwatch.db": files["gradwatch.db"] + b"x"}, "as it was exported"),
        "foreign.zip": ({"manifest.json": b"{}"}, "another zip file"),
        "later.zip": ({"manifest.json": json.dumps(later).encode()}, "Upgrade gradwatch"),
        "unsummed.zip": ({"manifest.json": json.dumps({**later, "version": 1, "sha256": []}).encode()}, "as it was exported"),
    }
    for name, (changed, said) in cases.items():
        ended = gradwatch("replay", written(name, changed))
        assert (ended.code, ended.out) == (5, ""), name
        assert said in ended.err
    locked = bytearray((tmp_path / "quiet.zip").read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(header) + flags] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    ended = gradwatch("replay", tmp_path / "locked.zip")
    assert (ended.code, ended.out) == (5, "")
    assert "encrypted" in ended.err


def test_extract_knows_every_table_of_the_schema(data: Path, tmp_path: Path) -> None:
    """A table that a later version adds is either of a run or deliberately left out; names of others' signals are."""
    with closing(sqlite3.connect(data / "gradwatch.db", isolation_level=None)) as db:
        db.execute("INSERT INTO signal (name, subject) VALUES ('user', 'of-another')")
    extract_run(data / "gradwatch.db", "ant-ppo", tmp_path / "one.db")
    with closing(sqlite3.connect(data / "gradwatch.db")) as db:
        tables = {
            name: {row[1] for row in db.execute(f"PRAGMA table_info({name})")}
            for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
    with closing(sqlite3.connect(tmp_path / "one.db")) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        streams = {run for (run,) in db.execute("SELECT run FROM stream")}
        subjects = {subject for (subject,) in db.execute("SELECT subject FROM signal")}

    special = {"stream", "signal", "signal_set", "tail", "chunk", "chunk_columns", "piece"}
    left = {name for name, columns in tables.items() if name not in special and not columns & {"run", "stream", "anomaly"}}
    assert left == set()
    assert "of-another" not in subjects
    assert (version, streams) == (len(MIGRATIONS), {"ant-ppo"})


def test_extract_takes_a_run_of_more_streams_than_an_expression_may_have_parts(data: Path, tmp_path: Path) -> None:
    """A run that was restarted 1,500 times, or has as many ranks."""
    with closing(sqlite3.connect(data / "gradwatch.db", isolation_level=None)) as db:
        db.executemany("INSERT INTO stream (run, attempt, rank) VALUES ('ant-ppo', ?, 0)", [(100 + n,) for n in range(1500)])
    extract_run(data / "gradwatch.db", "ant-ppo", tmp_path / "one.db")
    with closing(sqlite3.connect(tmp_path / "one.db")) as db:
        (count,) = db.execute("SELECT count(*) FROM stream").fetchone()
        (copied,) = db.execute("SELECT sum(n) FROM tail").fetchone()
    assert (count > 1500, copied > 0) == (True, True)
