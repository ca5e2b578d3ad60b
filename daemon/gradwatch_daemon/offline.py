"""What is done to stored runs without a daemon, or beside one: the wiring of replays. `app` is that of the daemon."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.apart import refusal
from gradwatch_daemon.api.detectors import detector_item
from gradwatch_daemon.api.replay import replay_document
from gradwatch_daemon.catalogue import describe
from gradwatch_daemon.config import check_kinds
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile
from gradwatch_daemon.detect.extensions import load_rules
from gradwatch_daemon.exporting.bundle import DATABASE, is_bundle, read_manifest, unpack_database
from gradwatch_daemon.importer import Shelf, import_log, import_spool, is_log, read_log, run_name
from gradwatch_daemon.importing.spool import is_spool
from gradwatch_daemon.records.replayed import Replayed, Window
from gradwatch_daemon.replay.run import check_size, compare_profiles, compare_with_live, replay_run
from gradwatch_daemon.store.backup import back_up
from gradwatch_daemon.store.recording import RecordingReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_daemon.config import Config

LIVE = "live"
NICE = 10
"""A replay on request gives way to the trainer and to the daemon."""


def replay_place(
    path: Path, run: str, profile: str, thresholds: Mapping[str, Mapping[str, float]], **asked: Any
) -> dict[str, Any]:
    """`replay_stored` of a data directory or database file, of a bundle, or of a log that is imported for it and forgotten
    again; what was odd about the log is among the notes.

    Raises:
        GradwatchError: as `replay_stored` and `import_log`.
    """
    if is_bundle(path):
        with tempfile.TemporaryDirectory(prefix="gradwatch-") as home:
            unpack_database(path, Path(home) / DATABASE)
            return replay_stored(Path(home), run, profile, thresholds, **asked)
    if not is_log(path):
        return replay_stored(path, run, profile, thresholds, **asked)
    reading = read_log(path, {})
    name = run or run_name(path)
    with tempfile.TemporaryDirectory(prefix="gradwatch-") as home:
        report = import_log(reading, name, Shelf(Path(home), profile, thresholds))
        document = replay_stored(Path(home), name, profile, thresholds, **asked) if report["rows"] else nothing(name, profile)
    return with_log(document, report)


def bundled_rules(
    path: Path, profile: str, thresholds: Mapping[str, Mapping[str, float]]
) -> tuple[str, dict[str, dict[str, float]]]:
    """The rules that a bundle was judged by, with `thresholds` over them; `profile` '' is that of the bundle, another one
    begins from its own numbers.

    Raises:
        GradwatchError: `recording-unreadable`.
    """
    rules = read_manifest(path)["rules"]
    same = profile in ("", rules["profile"])
    kept = {kind: {key: float(value) for key, value in of.items()} for kind, of in rules["thresholds"].items()} if same else {}
    for kind, numbers in thresholds.items():
        kept.setdefault(kind, {}).update(numbers)
    return profile or rules["profile"], kept


def import_place(path: Path, run: str, given: Mapping[str, str], shelf: Shelf, updates_total: int | None) -> dict[str, Any]:
    """Store a log in a data directory; the report of it, with the replay of the run as `replay` (None where it has no rows).

    `run` '' names it by where it lies.

    Raises:
        GradwatchError: as `read_log` and `import_log`.
    """
    name = run or run_name(path)
    report = import_log(read_log(path, given), name, shelf, updates_total)
    document = replay_stored(shelf.data_dir, name, shelf.profile, shelf.thresholds) if report["rows"] else None
    return {**report, "replay": document}


def import_what(path: Path, run: str, given: Mapping[str, str], shelf: Shelf, **asked: Any) -> dict[str, Any]:
    """A log or a spool, whichever lies there. `asked`: `updates_total` is for a log, `delete` for a spool."""
    if is_spool(path):
        return import_spool(path, run, shelf, delete=asked["delete"])
    return import_place(path, run, given, shelf, asked["updates_total"])


def nothing(run: str, profile: str) -> dict[str, Any]:
    """The document of a run that has no rows."""
    rules = load_rules(profile)
    empty = ("there are no rows to replay",)
    return replay_document(Replayed(run, profile, rules.rules_hash, (), 0, empty, (), 0.0), ())


def with_log(document: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """A replay that also says what was odd about the log it is of: damage makes it inconclusive."""
    damage = [f"the log is damaged: {said}" for said in report["damage"]]
    oddities = [f"in the log: {count} {what}" for what, count in report["oddities"].items()]
    document = {**document, "inconclusive": document["inconclusive"] + damage}
    document["notes"] = [*document["notes"], *report["notes"], *oddities]
    if damage and document["verdict"] == "clean":
        document["verdict"] = "inconclusive"
    return document


def replay_stored(
    path: Path,
    run: str,
    profile: str,
    thresholds: Mapping[str, Mapping[str, float]],
    *,
    first: int | None = None,
    last: int | None = None,
    against: str = "",
    rows_max: int | None = None,
) -> dict[str, Any]:
    """Replay a run of a data directory or database file; the document of POST /replay. Writes nothing.

    `run` '' takes the only one there is. `against` is `live`, a profile, or '' for no comparison.

    Raises:
        GradwatchError: `recording-unreadable`, `run-not-found`, `config-invalid`, `replay-too-large`.
    """
    rules = load_rules(profile, thresholds)
    other = None if against in ("", LIVE) else _other(against)
    window = Window(first, last)
    reader = RecordingReader(path)
    try:
        recording = reader.recording(run or _only_run(reader))
        if rows_max is not None:
            check_size(recording, rows_max)
        given: dict[str, Any] = {"window": window, "unknown": reader.unknown_signals(), "clock": time.perf_counter}
        replayed = replay_run(recording, reader.blocks, rules, **given)
        if against == LIVE:
            replayed = compare_with_live(replayed, recording, window)
        elif other is not None:
            replayed = compare_profiles(replayed, replay_run(recording, reader.blocks, other, **given))
    finally:
        reader.close()
    return replay_document(replayed, describe(rules))


def _other(against: str) -> Any:
    if against not in PROFILES:
        raise GradwatchError("config-invalid", where="diff", expected=f"{LIVE}, {', '.join(PROFILES)}", got=repr(against))
    return load_rules(against)


def _only_run(reader: RecordingReader) -> str:
    runs = reader.runs()
    if len(runs) == 1:
        return runs[0]
    raise GradwatchError(
        "run-not-found",
        where=str(reader.file),
        expected="one run" if not runs else f"the name of one of {', '.join(runs[:20])}",
        got=f"{len(runs)} runs and no name",
        next_step="Choose one with --run." if runs else "It is empty: nothing was ever stored in it.",
    )


def rules_hash_of(config: Config) -> str:
    """The hash of the rules that a configuration means.

    Raises:
        GradwatchError: `config-invalid` for a threshold or a kind that is none, naming the nearest.
    """
    rules = load_rules(config.profile, config.thresholds)
    check_kinds(config, rules.rules)
    return rules.rules_hash


def back_up_store(source: Path, target: Path) -> int:
    """Copy a data directory's store into the new file `target`; see `store.backup`."""
    return back_up(source, target)


def main() -> int:
    """One replay on request of the daemon: an order on stdin, one JSON document on stdout."""
    os.nice(NICE)
    order = json.load(sys.stdin)
    try:
        answer = {"document": replay_stored(Path(order.pop("path")), **order)}
    except GradwatchError as error:
        answer = refusal(error)
    json.dump(answer, sys.stdout, allow_nan=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())


def detector_as_shipped(kind: str) -> dict[str, Any]:
    """One detector of the profile `default`, as HTTP describes it, without a configuration.

    Raises:
        KeyError: the profile has no such kind.
    """
    described = {info.kind: info for info in describe(load_profile("default"))}
    return detector_item(described[kind]).model_dump(by_alias=True)
