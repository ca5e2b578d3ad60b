"""`gradwatch level` and `gradwatch calm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness import api_documents as documents

if TYPE_CHECKING:
    from harness.command_line import CommandLine
    from harness.daemon_stub import DaemonStub

PATH = "/api/v1/runs/ant-ppo"


@pytest.mark.parametrize("flags", [("--base", "loud"), ("--pin", "nothing")])
def test_level_that_is_none_is_refused_without_asking(stub: DaemonStub, gradwatch: CommandLine, flags: tuple[str, str]) -> None:
    """Naming the flag and the levels there are."""
    ended = gradwatch("level", "ant-ppo", *flags)

    assert ended.code == 2
    assert f"{flags[0]}: expected off, minimal, normal or debug" in ended.err
    assert stub.requests == []


def test_level_alone_is_shown(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Nothing is changed."""
    stub.answer("GET", PATH, documents.run_detail())
    ended = gradwatch("level", "ant-ppo")

    assert ended.code == 0
    assert "ant-ppo: base normal, not pinned; the newest update was collected at debug." in ended.out
    assert "debug" in ended.out
    assert "2.10%" in ended.out
    assert "at debug: core, exemplars, ranges" in ended.out
    assert "of the trainer's own time: core 1.30%, exemplars 0.80%; the others are within core" in ended.out
    assert "10 of 12 updates of the last 500; room again at update 131" in ended.out
    assert "stop on critical nonfinite: a shadow, would have been done 2 times" in ended.out
    assert {seen.method for seen in stub.requests} == {"GET"}


@pytest.mark.parametrize(
    ("flags", "change"),
    [
        (("--base", "MINIMAL"), {"base": "minimal"}),
        (("--pin", "off"), {"pin": "off"}),
        (("--pin", "none"), {"pin": None}),
        (("--base", "debug", "--pin", "none"), {"base": "debug", "pin": None}),
    ],
)
def test_level_changed_asks_for_what_was_named_only(
    stub: DaemonStub, gradwatch: CommandLine, flags: tuple[str, ...], change: dict[str, object]
) -> None:
    """With the wait the API takes at most."""
    level = {"base": "minimal", "pin": "off", "effective": None, "revision": 8}
    stub.answer("PATCH", PATH, documents.run_summary(level=level), status=202)
    ended = gradwatch("level", "ant-ppo", *flags, "--wait")

    (seen,) = stub.asked(PATH)
    assert (seen.body, seen.query) == ({"level": change}, {"wait": "30.0"})
    assert "pinned to off; no update has come yet" in ended.out


def test_calm_asks_once_and_says_what_holds(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """One request, so nothing comes between."""
    stub.answer("DELETE", f"{PATH}/escalations", documents.run_summary(), status=202)
    ended = gradwatch("calm", "ant-ppo")

    assert ended.code == 0
    assert "base normal, not pinned" in ended.out
