"""The snippets of README.md and docs/adapters.md run as they stand, in a trainer that is there already."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
LINES_ADDED_MAX = 3


def snippets(page: str) -> list[str]:
    """Python blocks of a page that import an adapter."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "gradwatch_agent.adapters" in block]


def _sb3() -> dict[str, Any]:
    from stable_baselines3 import PPO

    from harness.adapters import Walk

    return {"model": PPO("MlpPolicy", Walk(), n_steps=8, batch_size=8, n_epochs=1, device="cpu"), "total_timesteps": 16}


def _lightning() -> dict[str, Any]:
    from lightning.pytorch import Trainer
    from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return {"Trainer": partial(Trainer, **quiet), "module": BoringModel(), "loader": DataLoader(RandomDataset(32, 4))}


def _huggingface() -> dict[str, Any]:
    from transformers import Trainer, TrainingArguments

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(2, 1)

        def forward(self, x: Any) -> dict[str, Any]:
            return {"loss": self.net(x).square().mean()}

    args = TrainingArguments("out", max_steps=2, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True)
    return {"Trainer": Trainer, "model": Model(), "args": args, "data": [{"x": torch.rand(2)} for _ in range(4)]}


def _trl() -> dict[str, Any]:
    from harness.trl_trainer import Reward, make_trainer

    return {"trainer": make_trainer("GRPO", Path.cwd(), Reward(), max_steps=1)}


TRAINERS: dict[str, Callable[[], dict[str, Any]]] = {
    "sb3": _sb3,
    "lightning": _lightning,
    "huggingface": _huggingface,
    "tensorboard": dict,
    "trl": _trl,
}
"""Adapter → what a snippet of it finds."""

SPECIAL = {"trl"}
"""Only in docs/adapters.md: README.md has its library's line by another adapter."""


def _adapter(snippet: str) -> str:
    found = re.search(r"gradwatch_agent\.adapters\.(\w+)", snippet)
    assert found
    return found.group(1)


ADAPTERS = {path.stem for path in (ROOT / "agent/gradwatch_agent/adapters").glob("*.py")}
SNIPPETS = [(page, snippet) for page in ("README.md", "docs/adapters.md") for snippet in snippets(page)]


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS, ids=lambda text: text if "\n" not in text else _adapter(text))
@pytest.mark.filterwarnings("ignore")  # what the libraries advise is theirs
def test_snippet_runs_as_it_stands(page: str, snippet: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Against the installed library, without a daemon."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setenv("GRADWATCH_ENDPOINT", f"ipc://{tmp_path}/none")
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path))
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", 0.01)
    monkeypatch.chdir(tmp_path)

    exec(compile(snippet, page, "exec"), TRAINERS[_adapter(snippet)]())


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS, ids=lambda text: text if "\n" not in text else _adapter(text))
def test_snippet_adds_few_lines(page: str, snippet: str) -> None:
    """Three lines at most: that is what adopting us may cost."""
    assert len([line for line in snippet.splitlines() if line.strip()]) <= LINES_ADDED_MAX


@pytest.mark.parametrize("page", ["README.md", "docs/adapters.md"])
def test_page_has_a_snippet_for_every_adapter(page: str) -> None:
    """An adapter that nobody reads of is not adopted."""
    assert {_adapter(snippet) for snippet in snippets(page)} == set(TRAINERS) - (SPECIAL if page == "README.md" else set())
    assert set(TRAINERS) < ADAPTERS


@pytest.mark.parametrize("page", ["README.md", "docs/adapters.md"])
def test_launcher_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    """The line that needs no change to the script."""
    (line,) = re.findall(r"^```sh\n(gradwatch run .*)\n```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    (tmp_path / "train.py").write_text("print('trained')\n")
    words = [sys.executable if word == "python" else word for word in line.split()[1:]]
    command = [sys.executable, "-m", "gradwatch_daemon.cli.main", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
