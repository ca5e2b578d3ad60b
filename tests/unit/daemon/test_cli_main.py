"""The parser, what each verb imports, and how a command ends when it cannot do its work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import jsonschema_rs
import pytest

from gradwatch_contracts import __version__
from gradwatch_daemon.cli.failure import CommandError
from gradwatch_daemon.cli.parser import build_parser
from harness.command_line import CommandLine

HEAVY = {"numpy", "pydantic", "fastapi", "starlette", "uvicorn", "zmq", "torch", "sqlite3", "asyncio"}
NETWORK = {"urllib.request", "http.client", "ssl", "socket"}
VERBS = (
    *("serve", "demo", "status", "health", "version", "runs", "signals", "series", "anomalies", "detectors", "escalate"),
    *("explain", "doctor", "token", "replay", "ack", "silence", "notify"),
)


ERROR = Path(__file__).parents[3] / "docs" / "cli-schemas" / "error.json"
"""What is promised of the one line."""


@pytest.mark.parametrize(
    ("argv", "code", "exit_code", "said"),
    [
        (("runs", "--json"), "daemon-unreachable", 4, "gradwatch serve"),
        (("runs", "--json", "--state", "lve"), "usage", 2, "--help"),
        (("escalate", "--json", "ant-ppo", "--for", "5", "--level", "debgu"), "invalid-argument", 2, ""),
        (("nonsense", "--json"), "usage", 2, "--help"),
    ],
)
def test_failure_with_json_is_one_line_of_json_and_the_same_exit_code(
    gradwatch: CommandLine, argv: tuple[str, ...], code: str, exit_code: int, said: str
) -> None:
    """A program that asked for JSON parses no sentence, whatever went wrong, and before what was understood of its words."""
    ended = gradwatch(*argv)
    assert (ended.code, ended.out) == (exit_code, "")
    (line,) = ended.err.splitlines()
    document = json.loads(line)
    jsonschema_rs.validator_for(json.loads(ERROR.read_text(encoding="utf-8"))).validate(document)
    assert (document["code"], document["exit_code"]) == (code, exit_code)
    assert said in (document["next"] or "")


def test_json_of_a_command_that_is_run_is_not_ours(gradwatch: CommandLine) -> None:
    """Behind -- everything is the trainer's."""
    ended = gradwatch("run", "--run", "NOT A NAME", "--", "train", "--json")
    assert ended.code == 2
    assert ended.err.startswith("gradwatch: ")


@pytest.fixture
def gradwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line where no daemon is."""
    return CommandLine(monkeypatch, capsys, tmp_path)


def _loaded(tmp_path: Path, *argv: str) -> set[str]:
    """Modules loaded by one command in a fresh interpreter."""
    script = (
        "import sys, json\nfrom gradwatch_daemon.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write('\\n' + json.dumps(sorted(sys.modules)))"
    )
    env = {**os.environ, "GRADWATCH_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script, *argv], capture_output=True, text=True, timeout=60, check=True, env=env
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("argv", [("--help",), ("version",), ("serve", "--help"), ("escalate",)], ids=" ".join)
def test_verbs_without_a_daemon_load_neither_network_nor_anything_heavy(tmp_path: Path, argv: tuple[str, ...]) -> None:
    """`--help` answers at once because the parser is all there is."""
    assert _loaded(tmp_path, *argv) & (HEAVY | NETWORK) == set()


@pytest.mark.parametrize(
    "argv",
    [("runs",), ("anomalies",), ("escalate", "r", "--for", "1"), ("token",), ("doctor",), ("explain", "x")],
    ids=" ".join,
)
def test_verbs_over_http_load_nothing_heavy(tmp_path: Path, argv: tuple[str, ...]) -> None:
    """They work where the daemon extra is not installed."""
    loaded = _loaded(tmp_path, *argv)

    assert loaded & HEAVY == set()
    assert "urllib.request" in loaded


def test_help_names_every_verb(gradwatch: CommandLine) -> None:
    """The whole command line on one page."""
    ended = gradwatch("--help")

    assert ended.code == 0
    assert [verb for verb in VERBS if f"    {verb}" not in ended.out] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_module_that_runs_it(verb: str) -> None:
    """One file a verb, with `run`."""
    assert callable(import_module(f"gradwatch_daemon.cli.{verb}").run)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "required: VERB"),
        (("anomalys",), "Did you mean anomalies?"),
        (("escalat", "r"), "Did you mean escalate?"),
        (("runs", "--stat", "live"), "unrecognized arguments: --stat"),
        (("runs", "--state", "alive"), "Did you mean live?"),
        (("escalate", "r"), "required: --for"),
        (("escalate", "r", "--for", "0"), "expected 1 or more, got 0"),
        (("escalate", "r", "--for", "ten"), "invalid number value: 'ten'"),
        (("escalate", "r", "--for", "5", "--wait", "nan"), "expected 0 to 86400 seconds"),
        (("anomalies", "--exit-code", "warn"), "Did you mean warning?"),
        (("anomalies", "--follow", "--exit-code"), "never ends"),
        (("series", "r"), "required: SIGNAL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_mistake_exits_2_with_what_was_expected(gradwatch: CommandLine, argv: tuple[str, ...], said: str) -> None:
    """One sentence and the next step on stderr, nothing on stdout, no traceback."""
    ended = gradwatch(*argv)

    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_no_daemon_exits_4_and_says_how_to_start_one(gradwatch: CommandLine) -> None:
    """Every verb over HTTP says the same."""
    for argv in (
        ("runs",),
        ("status",),
        ("health",),
        ("signals", "r"),
        ("token",),
        ("detectors",),
        ("explain", "x"),
        ("anomalies", "--follow"),
    ):
        ended = gradwatch(*argv)
        assert (ended.code, ended.out) == (4, ""), argv
        assert "gradwatch serve" in ended.err, argv


def test_escalate_unknown_level_exits_2_before_anything_is_sent(gradwatch: CommandLine) -> None:
    """The nearest level is named; no daemon is needed to know it."""
    ended = gradwatch("escalate", "ant-ppo", "--level", "debgu", "--for", "5")

    assert ended.code == 2
    assert "did you mean debug?" in ended.err


def test_version_prints_version_and_protocol(gradwatch: CommandLine) -> None:
    """For a person, and as one document."""
    document = json.loads(gradwatch("version", "--json").out)

    assert gradwatch("version").out.startswith(f"gradwatch {__version__} (protocol 1, ")
    assert (document["version"], document["protocol"]) == (__version__, 1)


def test_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    """`gradwatch … | head` is no error of ours."""
    script = "import sys\nfrom gradwatch_daemon.cli.main import main\nsys.exit(main(['version']))"
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen([sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        _, said = process.communicate(timeout=60)

    assert (process.returncode, said) == (141, b"")


def test_interrupt_exits_130(gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is the normal end of --follow: no traceback."""

    def interrupted(args: object, output: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("gradwatch_daemon.cli.version.run", interrupted)

    ended = gradwatch("version")

    assert (ended.code, ended.err) == (130, "")


def test_parser_error_carries_the_program_of_the_verb() -> None:
    """The next step names the help that helps."""
    with pytest.raises(CommandError) as caught:
        build_parser().parse_args(["series", "r"])

    assert caught.value.next_step == "See `gradwatch series --help`."
