"""The wheel holds the three packages and nothing else, and the daemon imports from it where torch does not exist."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from harness.distributions import link_required

ROOT = Path(__file__).parents[2]
PACKAGES = ("contracts/gradwatch_contracts", "agent/gradwatch_agent", "daemon/gradwatch_daemon")


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built with the installed back end."""
    out = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out, ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel, what its daemon extra requires, and the two libraries that single
    verbs need (the extras `top` and `parquet`)."""
    home = tmp_path_factory.mktemp("clean")
    needed = home / "needed"
    names = link_required(needed, ["gradwatch[daemon]", "textual", "pyarrow"])
    assert "torch" not in names
    for own in needed.glob("*gradwatch*"):  # the editable install must not stand in for the wheel
        own.unlink()
    _run(sys.executable, "-m", "venv", home / "env")
    python = home / "env" / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(home / "env")})
    (Path(site) / "needed.pth").write_text(f"{needed}\n", encoding="utf-8")
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    return python


def test_wheel_file_list_is_the_three_packages(wheel: Path) -> None:
    """All files of the packages are in it, with `py.typed`; nothing else is, no tests."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        notes = {name.split(".dist-info/")[1] for name in archive.namelist() if ".dist-info/" in name}
    expected = {
        str(path.relative_to((ROOT / package).parent))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert inside == expected
    assert {f"{Path(package).name}/py.typed" for package in PACKAGES} <= inside
    assert notes == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_daemon_in_clean_environment_imports_without_torch(clean_python: Path) -> None:
    """Every module of the daemon imports from the wheel where torch and gymnasium cannot be found."""
    script = """
import importlib, importlib.util, pkgutil, gradwatch_daemon
assert importlib.util.find_spec("torch") is None and importlib.util.find_spec("gymnasium") is None
names = [module.name for module in pkgutil.walk_packages(gradwatch_daemon.__path__, "gradwatch_daemon.")]
for name in names: importlib.import_module(name)
print(gradwatch_daemon.__file__, len(names))
"""
    place, count = _run(clean_python, "-I", "-c", script).split()

    assert Path(place).is_relative_to(clean_python.parents[1])
    assert int(count) > 10


def test_agent_in_clean_environment_imports_without_torch(clean_python: Path) -> None:
    """The agent is importable before torch is installed; only `watch` needs a model."""
    assert _run(clean_python, "-I", "-c", "from gradwatch_agent import watch; print(watch.__name__)") == "watch\n"


def test_console_script_in_clean_environment_runs(clean_python: Path) -> None:
    """The entry point is there and needs no daemon."""
    assert "0.1.0" in _run(clean_python.parent / "gradwatch", "version")
