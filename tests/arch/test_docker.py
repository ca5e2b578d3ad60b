"""The image and the compose file, without a container engine: steps run in a clean folder, keys held against the config."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gradwatch_daemon.config import HTTP_DEFAULT, load_config
from harness import dockerfile
from harness.distributions import link_required

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = dockerfile.parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICE: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE))["services"]["daemon"]
USER = dockerfile.values(INSTRUCTIONS, "USER")[0]
UID = int(USER.split(":")[0])
START_S = 30.0


def _interpreter_of(user: int, packages: Path) -> str | None:
    """A Python of this version that the user can run with the packages; None when there is none, or we may not become it."""
    if os.geteuid() != 0:
        return None
    name = f"python3.{sys.version_info.minor}"
    for candidate in (sys.executable, shutil.which(name, path="/usr/local/bin:/usr/bin")):
        if candidate is None:
            continue
        try:
            probe = subprocess.run(
                [candidate, "-c", "import fastapi, hatchling, numpy, pip, venv, zmq"],
                env={"PYTHONPATH": str(packages)},
                user=user,
                group=user,
                capture_output=True,
                timeout=60,
                check=False,
            )
        except OSError:
            continue
        if probe.returncode == 0:
            return candidate
    return None


@pytest.fixture(scope="module")
def image() -> Iterator[dockerfile.Image]:
    """The image's content, built as the image's own user where this machine allows it, else as ours."""
    # Not tmp_path: pytest keeps it to this user, and ipc paths have 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="gw-image-"))
    try:
        packages = root / "packages"
        link_required(packages, ["gradwatch[daemon]", "hatchling", "pip"])
        for own in packages.glob("*gradwatch*"):
            own.unlink()
        root.chmod(0o755)
        python = _interpreter_of(UID, packages)
        if python is not None:
            os.chown(root, UID, UID)
        built = dockerfile.Image(root, ROOT, python or sys.executable, packages, UID if python else None)
        built.build(INSTRUCTIONS)
        yield built
    finally:
        shutil.rmtree(root)


def test_image_cmd_answers_its_health_check_until_it_is_stopped(image: dockerfile.Image) -> None:
    """Unhealthy before, healthy while it runs, an orderly end on STOPSIGNAL, unhealthy after."""
    health = dockerfile.values(INSTRUCTIONS, "HEALTHCHECK")[0].split(" CMD ")[1]
    command = dockerfile.exec_form(dockerfile.values(INSTRUCTIONS, "CMD")[0])
    assert image.shell(health).returncode == 1
    # Port 0: the tests run beside whatever has 9470. The health check reads the real one from connection.json.
    daemon = image.start([re.sub(r":9470$", ":0", part) for part in command])
    try:
        deadline = time.monotonic() + START_S
        while image.shell(health).returncode != 0:
            assert daemon.poll() is None, daemon.communicate()[1]
            assert time.monotonic() < deadline, "the health check never succeeded"
        connection = Path(image.inside("/run/gradwatch/connection.json")).stat()
        data = Path(image.inside("/var/lib/gradwatch")).stat()
        daemon.send_signal(getattr(signal, dockerfile.values(INSTRUCTIONS, "STOPSIGNAL")[0]))
        _, said = daemon.communicate(timeout=START_S)
    finally:
        daemon.kill()
        daemon.communicate()

    assert daemon.returncode == 0, said
    assert stat.S_IMODE(connection.st_mode) == 0o600
    assert connection.st_uid == data.st_uid == (image.user if image.user is not None else os.geteuid())
    assert image.shell(health).returncode == 1


def test_image_has_no_torch_and_no_tests(image: dockerfile.Image) -> None:
    """The daemon never needs it, and an image with it would be gigabytes."""
    installed = sorted(path.name for path in Path(image.inside("/opt/gradwatch")).glob("lib/*/site-packages/gradwatch*"))

    assert image.shell("/opt/gradwatch/bin/python -c 'import torch'").returncode == 1
    assert installed[-4:] == ["gradwatch-0.1.0.dist-info", "gradwatch_agent", "gradwatch_contracts", "gradwatch_daemon"]


def test_build_context_holds_what_is_copied_and_nothing_else() -> None:
    """No .git, no tests, no caches, no secrets beside the checkout reach the builder."""
    tops = {file.split("/", 1)[0] for file in dockerfile.context_files(ROOT)}
    copied = {
        source
        for text in dockerfile.values(INSTRUCTIONS, "COPY")
        if not text.startswith("--from")
        for source in text.split()[:-1]
    }

    assert tops == copied
    assert not [file for file in dockerfile.context_files(ROOT) if file.endswith(".pyc")]


def test_dockerfile_runs_as_a_numeric_user_on_a_chosen_base() -> None:
    """Non-root in a form that `runAsNonRoot` can check; the base image is an argument of every stage."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", USER)
    assert [text.split()[0] for text in dockerfile.values(INSTRUCTIONS, "FROM")] == ["${PYTHON_IMAGE}"] * 2
    names = [instruction.name for instruction in INSTRUCTIONS]
    assert names.index("USER") < names.index("CMD")


@pytest.mark.parametrize(
    "environment",
    [
        {name: value for name, value in dockerfile.variables(INSTRUCTIONS).items() if name.startswith("GRADWATCH_")},
        SERVICE["environment"],
    ],
    ids=["Dockerfile", "compose"],
)
def test_environment_is_what_the_configuration_knows(environment: dict[str, str], tmp_path: Path) -> None:
    """The config refuses unknown GRADWATCH_ variables; the directories it then uses are the volumes."""
    config = load_config({}, environment, tmp_path)

    volumes = re.findall(r'"([^"]+)"', dockerfile.values(INSTRUCTIONS, "VOLUME")[0])
    assert [str(config.data_dir), str(config.runtime_dir)] == volumes
    assert config.ingest == "auto"


def test_environment_with_a_mistyped_variable_is_refused(tmp_path: Path) -> None:
    """The check above can fail."""
    with pytest.raises(Exception, match="GRADWATCH_DATA_DIR"):
        load_config({}, {"GRADWATCH_DATADIR": "/x"}, tmp_path)


def test_compose_publishes_http_on_loopback_only() -> None:
    """One port, the one of the image and of the configuration's default; ingest has none."""
    port = HTTP_DEFAULT.rsplit(":", 1)[1]
    command = dockerfile.exec_form(dockerfile.values(INSTRUCTIONS, "CMD")[0])

    assert SERVICE["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert dockerfile.values(INSTRUCTIONS, "EXPOSE") == [port]
    assert command[-3:] == ["--http", f"0.0.0.0:{port}", "--insecure-http-beyond-loopback"]


def test_compose_volumes_are_data_and_the_shared_runtime_directory() -> None:
    """Both are declared, and mounted where the environment says; nothing else of the host is."""
    document = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE))
    mounted = dict(volume.split(":") for volume in SERVICE["volumes"])

    assert mounted == {
        "data": SERVICE["environment"]["GRADWATCH_DATA_DIR"],
        "runtime": SERVICE["environment"]["GRADWATCH_RUNTIME_DIR"],
    }
    assert set(document["volumes"]) == set(mounted)


def test_compose_runs_without_privileges() -> None:
    """The image's user, no capabilities, a read-only root with room in /tmp alone."""
    assert SERVICE["user"] == USER
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["read_only"] is True
    assert SERVICE["tmpfs"] == ["/tmp"]
    assert "privileged" not in SERVICE
    assert "network_mode" not in SERVICE
