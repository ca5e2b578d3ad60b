"""`gradwatch run -- python train.py`: a CleanRL-shaped script that knows nothing of us, end to end with a real daemon."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from math import log
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = str(Path(__file__).parents[1] / "harness" / "cleanrl_shaped.py")
CLI = [sys.executable, "-m", "gradwatch_daemon.cli.main"]
ITERATIONS, BATCH, MINIBATCHES = 5, 64, 4


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One for all: each test has a run of its own."""
    with DaemonProcess(tmp_path_factory.mktemp("run")) as process:
        yield process


def launch(daemon: DaemonProcess, run: str, *script: str, flags: tuple[str, ...] = (), **env: str) -> subprocess.Popen[str]:
    """The command line, as a user types it."""
    command = [*CLI, "run", "--run", run, *flags, "--", sys.executable, SCRIPT, *script]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**daemon.environment, **env}, stdout=pipe, stderr=pipe, text=True, cwd=daemon.home)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def series(daemon: DaemonProcess, run: str, name: str, subject: str = "") -> list[Any]:
    """The values of a signal, update by update."""
    query = urlencode({"signal": name, "subject": subject})
    return list(daemon.get(f"/api/v1/runs/{run}/series?{query}")["last"])


def ended(daemon: DaemonProcess, run: str) -> Any:
    """The run, when it is over for the daemon too."""
    return wait_for(lambda: (found := daemon.run(run)) and found["state"] in {"finished", "crashed", "stopped"} and found, run)


def own_lines(err: str) -> list[str]:
    """What we said on the script's standard error, without the start-up line of the log."""
    return [line for line in err.splitlines() if line.startswith("gradwatch: ") and " detectors see" not in line]


def arguments(name: str) -> list[str]:
    """Of a script that writes everything it can into files of this name (of seven letters: event files hold it)."""
    return ["--burst-at", "3", "--nan-at", "2", "--logdir", name, "--truth", f"{name}.jsonl", "--parameters", f"{name}.pt"]


@pytest.fixture(scope="module")
def alone(daemon: DaemonProcess) -> subprocess.CompletedProcess[str]:
    """The script without us."""
    command = [sys.executable, SCRIPT, *arguments("by_self")]
    return subprocess.run(command, cwd=daemon.home, env=daemon.environment, capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def watched(daemon: DaemonProcess) -> tuple[int, str, str]:
    """The same, watched as the run `plain`."""
    return finish(launch(daemon, "plain", *arguments("watched")))


def test_run_of_an_unmodified_script_is_recorded_update_by_update(daemon: DaemonProcess, watched: tuple[int, str, str]) -> None:
    """Pre-clip norms, steps, scalars and episodes, each in the iteration that they belong to, the last one too."""
    code, out, err = watched

    assert (code, out) == (0, "done\n"), err
    assert own_lines(err) == [
        "gradwatch: watching run 'plain' through gradients (clip_grad_norm_ and optimizer steps), scalars "
        "(SummaryWriter.add_scalar), entropies (entropy() of torch.distributions), exceptions (sys.excepthook). "
        "`--no-patch NAME` leaves one alone.",
        "gradwatch: an update ends when global_step changes.",
        "gradwatch: scalars of CleanRL PPO: charts/learning_rate is opt.lr, losses/approx_kl is policy.kl.k3.last, "
        "losses/clipfrac is policy.clip_fraction, losses/explained_variance is value.explained_variance.",
    ]
    run = ended(daemon, "plain")
    known = [json.loads(line) for line in (daemon.home / "watched.jsonl").read_text().splitlines()]
    assert (run["state"], run["update_last"]) == ("finished", ITERATIONS - 1)
    assert series(daemon, "plain", "grad.norm.mean") == [pytest.approx(fmean(one["norms"]), rel=1e-5) for one in known]
    assert series(daemon, "plain", "grad.norm.max") == [pytest.approx(max(one["norms"]), rel=1e-5) for one in known]
    assert series(daemon, "plain", "grad.clip_limit") == [pytest.approx(0.1)] * ITERATIONS
    assert series(daemon, "plain", "opt.steps") == [MINIBATCHES] * ITERATIONS
    assert series(daemon, "plain", "opt.skipped") == [0] * ITERATIONS
    assert series(daemon, "plain", "user", "losses/approx_kl") == [pytest.approx(one["kl"], rel=1e-4) for one in known]
    assert series(daemon, "plain", "policy.kl.k3.last") == [pytest.approx(one["kl"], rel=1e-4) for one in known]
    assert series(daemon, "plain", "policy.clip_fraction") == [pytest.approx(fmean(one["clipfrac"])) for one in known]
    assert series(daemon, "plain", "value.explained_variance") == [pytest.approx(one["ev"], rel=1e-5) for one in known]
    assert series(daemon, "plain", "policy.entropy.raw") == [pytest.approx(one["entropy"], rel=1e-5) for one in known]
    assert series(daemon, "plain", "policy.entropy.norm") == [pytest.approx(one["entropy"] / log(2), rel=1e-5) for one in known]
    found = daemon.get("/api/v1/runs/plain/series?signal=loss.total.nonfinite")
    assert (found["update"][0], found["last"][0]) == (2, 1)  # nothing is known of the others
    assert series(daemon, "plain", "episode.count")[::2] == [2, 2, 2]
    assert series(daemon, "plain", "episode.return.mean")[::2] == [pytest.approx(fmean(one["returns"])) for one in known[::2]]
    assert series(daemon, "plain", "opt.lr")[2:] == [pytest.approx(rate) for rate in (2.5e-4, 0.25, 2.5e-4)]
    assert (run["config"]["num_envs"], run["config"]["wandb_token"]) == (4, "[redacted]")


def test_detectors_judge_what_a_script_logs_and_asks(daemon: DaemonProcess, watched: tuple[int, str, str]) -> None:
    """The KL of the last minibatch in place of that of the update, and it says so; the entropy as it was asked for; a loss that
    is no number is a finding. What nobody logs stays blind."""
    ended(daemon, "plain")
    told = {item["kind"]: item for item in daemon.run("plain")["standings"]}
    assert told["kl_extreme"]["state"] in {"armed", "firing"}
    assert "policy.kl.k3.last in place of policy.kl.k3" in told["kl_extreme"]["reason"]
    assert told["kl_spike"]["state"] == "learning"
    assert {told[kind]["state"] for kind in ("entropy_collapse", "entropy_low")} == {"armed"}
    assert told["ratio_explosion"]["state"] == told["value_collapse"]["state"] == "blind"
    found = {item["kind"] for item in daemon.get("/api/v1/anomalies?run=plain")["items"]}
    assert "nonfinite" in found
    assert "To add: " in watched[2]


def test_script_writes_what_it_writes_alone(
    daemon: DaemonProcess, alone: subprocess.CompletedProcess[str], watched: tuple[int, str, str]
) -> None:
    """Event files record for record but for the wall time, final parameters bit for bit, standard output."""
    assert watched[:2] == (0, alone.stdout)
    left, right = (records(daemon.home / name) for name in ("by_self", "watched"))
    assert [one.replace("watched", "by_self") for one in right] == left  # the arguments are written as a text
    assert len(left) > 20
    states = [torch.load(daemon.home / f"{name}.pt") for name in ("by_self", "watched")]
    assert all(map(torch.equal, states[0].values(), states[1].values()))


def test_script_with_our_summary_writer_writes_what_it_writes_alone(
    daemon: DaemonProcess, alone: subprocess.CompletedProcess[str]
) -> None:
    """One import is another; the script is started as ever, and watched as `gradwatch run` watches it."""
    text = Path(SCRIPT).read_text(encoding="utf-8")
    changed = text.replace("from torch.utils.tensorboard import", "from gradwatch_agent.adapters.tensorboard import")
    assert changed != text
    (daemon.home / "train.py").write_text(changed)
    command = [sys.executable, "train.py", *arguments("our_own")]
    done = subprocess.run(command, cwd=daemon.home, env=daemon.environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, alone.stdout), done.stderr
    left, right = (records(daemon.home / name) for name in ("by_self", "our_own"))
    assert [one.replace("our_own", "by_self") for one in right] == left
    assert ended(daemon, "train")["update_last"] == ITERATIONS - 1
    assert series(daemon, "train", "opt.steps") == [MINIBATCHES] * ITERATIONS
    assert series(daemon, "train", "grad.clip_limit") == [pytest.approx(0.1)] * ITERATIONS


X_SCRIPT = """
import sys, torch
from tensorboardX import SummaryWriter
torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
with SummaryWriter(sys.argv[1]) as writer:
    writer.add_text("hyperparameters", "|param|value|\\n|-|-|\\n|seed|1|")
    for update in range(3):
        loss = model(torch.ones(4, 3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        writer.add_scalar("losses/loss", loss.item(), 8 * update, display_name="shown as this")
        writer.add_histogram("weights", model.weight.detach(), 8 * update)
        writer.add_scalars("several", {"a": 1.0, "b": float(update)}, 8 * update)
"""


@pytest.mark.campaign
def test_writer_of_tensorboardx_is_forwarded_and_writes_what_it_writes_alone(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Its scalars, with an argument that torch's writer does not take; what is no scalar is written and not sent."""
    script = tmp_path / "train.py"
    script.write_text(X_SCRIPT)
    other = tmp_path / "dropped_in.py"
    other.write_text(X_SCRIPT.replace("from tensorboardX", "from gradwatch_agent.adapters.tensorboardx"))
    run = [*CLI, "run", "--run", "x", "--"]
    for before, program, logs in (([], script, "by_self"), (run, script, "watched"), ([], other, "swapped")):
        command = [*before, sys.executable, str(program), str(tmp_path / logs)]
        subprocess.run(command, env=daemon.environment, capture_output=True, check=True)

    left = records(tmp_path / "by_self")
    assert records(tmp_path / "watched") == left
    assert records(tmp_path / "swapped") == left
    assert len(left) > 8
    for run_key in ("x", "dropped_in"):
        assert ended(daemon, run_key)["update_last"] == 2
        assert daemon.run(run_key)["config"]["seed"] == 1
        losses = series(daemon, run_key, "user", "losses/loss")
        assert losses[0] > losses[2] > 0


def records(folder: Path) -> list[str]:
    """Every record of the event files in a folder, without its wall time."""
    found = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        for raw in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(raw)
            event.ClearField("wall_time")
            found.append(str(event))
    return found


def test_script_that_raises_is_a_crash_with_its_text(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Exit code 1 and the script's own traceback, as without us; the update that was over is whole."""
    code, out, err = finish(launch(daemon, "raises", "--end", "raise", "--logdir", str(tmp_path / "logs")))

    assert (code, out) == (1, "ending\n")
    assert err.rstrip().endswith("ValueError: loss is not what it was")
    assert "gradwatch_agent" not in err
    run = ended(daemon, "raises")
    events = daemon.get("/api/v1/runs/raises/events")["items"]
    assert (run["state"], run["update_last"]) == ("crashed", ITERATIONS - 2)
    (crash,) = [event for event in events if event["kind"] == "exception"]
    assert "ValueError: loss is not what it was" in crash["text"]
    assert series(daemon, "raises", "opt.steps") == [MINIBATCHES] * (ITERATIONS - 1)


def test_script_that_raises_before_its_first_gradient_is_heard_of(daemon: DaemonProcess) -> None:
    """It has no update, and somebody waits for it all the same."""
    code, _, err = finish(launch(daemon, "early", "--fail-early"))

    assert code == 1
    assert err.splitlines()[-1] != "RuntimeError: no environment of that name"  # ours comes after the traceback
    assert ended(daemon, "early")["state"] == "crashed"
    assert "no environment of that name" in daemon.get("/api/v1/runs/early/events")["items"][0]["text"]


@pytest.mark.parametrize(("end", "code"), [("exit", 7), pytest.param("SIGINT", -signal.SIGINT, marks=pytest.mark.campaign)])
def test_exit_status_is_the_script_s_own(tmp_path: Path, end: str, code: int) -> None:
    """Also of one that a signal ends; here nobody listens, which makes no difference."""
    found, out, err = finish(launch(DaemonProcess(tmp_path), "nobody", "--end", end))

    assert (found, out) == (code, "ending\n"), err


def test_signal_to_the_command_reaches_the_script(daemon: DaemonProcess) -> None:
    """There is no process of ours between the shell and the script: it has the command's own number."""
    process = launch(daemon, "signalled", "--end", "SIGSTOP")
    assert process.stdout is not None
    assert process.stdout.readline() == "ending\n"
    wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T", "the script to stop")
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGTERM)

    assert finish(process)[0] == -signal.SIGTERM


def test_script_that_logs_no_global_step_has_updates_of_so_many_steps(daemon: DaemonProcess) -> None:
    """And is told how many; what is left over at the end is a part."""
    code, _, err = finish(launch(daemon, "counted", flags=("--every", "8")))

    assert code == 0
    assert own_lines(err)[-1] == "gradwatch: an update ends every 8 optimizer steps, as the script logs no global_step."
    ended(daemon, "counted")
    assert series(daemon, "counted", "opt.steps") == [8, 8, 4]


@pytest.mark.campaign
def test_patch_that_is_not_wanted_is_left_alone(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Without gradients an update ends with each scalar that comes again; the line names what is left."""
    left_alone = ("--no-patch", "gradients", "--no-patch", "entropies", "--no-patch", "exceptions")
    code, _, err = finish(launch(daemon, "scalars", "--logdir", str(tmp_path / "logs"), flags=left_alone))

    assert code == 0
    assert "through scalars (SummaryWriter.add_scalar), entropies (" in own_lines(err)[0]
    run = ended(daemon, "scalars")
    items = daemon.get("/api/v1/runs/scalars/signals")["items"]
    names = {item["signal"] for item in items if item["measured"]}
    assert {"user", "episode.count"} <= names
    assert {name for name in names if name.startswith(("grad.", "opt."))} == {"opt.lr"}  # that the script itself logs
    assert run["update_last"] >= 2


STEP = """
import torch
weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.SGD([weight], 0.1)
weight.sum().backward()
optimizer.step()
print("done")
"""


def inline(daemon: DaemonProcess, program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A program of a few lines."""
    command = [*CLI, "run", "--run", "inline", "--", sys.executable, "-c", program]
    given = {**daemon.environment, **env}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.campaign
def test_mode_off_looks_into_nothing(daemon: DaemonProcess) -> None:
    """One switch for everything."""
    done = inline(daemon, STEP, GRADWATCH_MODE="off")

    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert daemon.run("inline") is None


def test_sitecustomize_of_the_machine_is_still_imported(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Ours stands before it and must not hide it; PYTHONPATH is kept."""
    (tmp_path / "sitecustomize.py").write_text("print('the machine has its own')\n")
    path = f"{tmp_path}:{daemon.environment.get('PYTHONPATH', '')}"
    done = inline(daemon, "import sitecustomize; print(sitecustomize.__file__)", PYTHONPATH=path)

    # Once of the command, and once of the script that it becomes.
    assert (done.returncode, done.stdout) == (0, "the machine has its own\n" * 2 + f"{tmp_path}/sitecustomize.py\n")


def test_finder_without_find_spec_is_passed_over(daemon: DaemonProcess) -> None:
    """As Python passes over it: a script that goes on without torch where that is missing does so here too."""
    old = "import sys; sys.meta_path.insert(0, type('Old', (), {'find_module': lambda *_: None})()); "
    done = inline(daemon, old + "import tensorboardX.writer; print('found')")

    assert (done.returncode, done.stdout) == (0, "found\n"), done.stderr


@pytest.mark.campaign
def test_python_without_the_agent_runs_the_script_and_says_so(daemon: DaemonProcess) -> None:
    """The command may be of one environment and the script of another."""
    done = inline(daemon, f"import sys; sys.modules['gradwatch_agent'] = None{STEP}")

    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert own_lines(done.stderr)[0].startswith("gradwatch: this script is not watched: ModuleNotFoundError: ")


@pytest.mark.campaign
def test_script_that_watches_itself_is_left_to_itself(daemon: DaemonProcess) -> None:
    """It says more than can be guessed."""
    calls = "from gradwatch_agent import watch; mon = watch(run='own'); mon.step(); "
    done = inline(daemon, calls + STEP.strip().replace("\n", "; ") + "; mon.close()")

    assert (done.returncode, done.stdout, own_lines(done.stderr)) == (0, "done\n", [])
    assert ended(daemon, "own")["update_last"] == 0
    assert daemon.run("inline") is None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "There is nothing to run"),
        (("--",), 2, "There is nothing to run"),
        (("train.py", "--lr", "1"), 2, "Put the command behind two dashes"),
        (("--evry", "3"), 2, "unrecognized arguments: --evry 3"),
        (("--no-patch", "gradient", "--", "true"), 2, "Did you mean gradients?"),
        (("--every", "0", "--", "true"), 2, "expected 1 or more"),
        (("--run", "No Name", "--", "true"), 2, "gradwatch run --run"),
        (("--", "nosuchcommand"), 127, "nosuchcommand cannot be run"),
        (("--", "/"), 126, "/ cannot be run"),
    ],
)
def test_command_that_cannot_be_run_says_why(daemon: DaemonProcess, arguments: tuple[str, ...], code: int, said: str) -> None:
    """Before anything is started."""
    done = subprocess.run([*CLI, "run", *arguments], env=daemon.environment, capture_output=True, text=True, check=False)

    assert done.returncode == code
    assert said.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_command_that_is_no_python_is_run_all_the_same(daemon: DaemonProcess) -> None:
    """A shell script around the trainer, for one."""
    done = subprocess.run([*CLI, "run", "--", "sh", "-c", "exit 3"], env=daemon.environment, check=False)

    assert done.returncode == 3
