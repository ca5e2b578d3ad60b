"""A Dockerfile read and carried out without a container engine: its files copied and its commands run in a clean folder.

Paths of the image (/opt, /src, /var, /run) lie under that folder. Nothing is fetched: packages come from a directory on
PYTHONPATH, and pip is told to need no index, no dependencies and no isolated build.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_PATHS = re.compile(r"(?<![\w/.])/(opt|src|var|run)\b")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, continuation lines joined."""

    name: str
    text: str


def parse(text: str) -> list[Instruction]:
    """Every instruction in order, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*(line.strip().split(maxsplit=1))) for line in joined.splitlines()]


def values(instructions: list[Instruction], name: str) -> list[str]:
    """The texts of all instructions of one name."""
    return [instruction.text for instruction in instructions if instruction.name == name]


def variables(instructions: list[Instruction]) -> dict[str, str]:
    """What ENV sets."""
    return dict(pair.split("=", 1) for text in values(instructions, "ENV") for pair in text.split())


def context_files(root: Path) -> Iterator[str]:
    """The files below `root` that .dockerignore lets into the build: of the patterns that match, the last decides."""
    patterns = [
        line for line in (root / ".dockerignore").read_text(encoding="utf-8").split("\n") if line and not line.startswith("#")
    ]
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") or Path(folder) != root]
        for name in files:
            path = PurePosixPath(Path(folder, name).relative_to(root))
            if not _ignored(path, patterns):
                yield str(path)


def _ignored(path: PurePosixPath, patterns: list[str]) -> bool:
    ignored = False
    for pattern in patterns:
        plain = pattern.removeprefix("!")
        if any(_matches(part, plain) for part in (path, *path.parents[:-1])):
            ignored = not pattern.startswith("!")
    return ignored


def _matches(path: PurePosixPath, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(path.name, pattern[3:])
    return len(path.parts) == len(PurePosixPath(pattern).parts) and fnmatch.fnmatch(str(path), pattern)


@dataclass(slots=True)
class Image:
    """What the instructions made: a folder, an environment, a working directory. `user` is a uid to run as, or None."""

    root: Path
    context: Path
    python: str
    packages: Path
    user: int | None
    cwd: Path = field(init=False)
    env: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        tools = self.root / "tools"
        tools.mkdir()
        # Debian's Python has no ensurepip; pip is among the packages.
        (tools / "python").write_text(
            f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] && {{ shift 2; exec {self.python} -m venv --without-pip "$@"; }}\n'
            f'exec {self.python} "$@"\n',
            encoding="utf-8",
        )
        (tools / "python").chmod(0o755)
        self.cwd = self.root
        self.env = {
            "PATH": f"{tools}:/usr/bin:/bin",
            "HOME": str(self.root),
            "PYTHONPATH": str(self.packages),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one as the value of "isolate the build"
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def inside(self, text: str) -> str:
        """A command with the image's paths under the folder."""
        return IMAGE_PATHS.sub(rf"{self.root}/\1", text)

    def build(self, instructions: list[Instruction]) -> None:
        """Carry out WORKDIR, COPY, RUN and ENV in order."""
        for instruction in instructions:
            if instruction.name == "WORKDIR":
                self.cwd = self._folder(Path(self.inside(instruction.text)))
            elif instruction.name == "COPY":
                self._copy(instruction.text)
            elif instruction.name == "RUN":
                self._run(instruction.text)
            elif instruction.name == "ENV":
                for pair in instruction.text.split():
                    name, value = pair.split("=", 1)
                    self.env[name] = self.inside(value).replace("$PATH", self.env["PATH"])
            elif instruction.name == "FROM":
                self.cwd = self.root

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command of the image, as CMD does."""
        program = shutil.which(command[0], path=self.env["PATH"])
        assert program, f"{command[0]} is not in the image"
        return subprocess.Popen(
            [program, *map(self.inside, command[1:])],
            cwd=self.cwd,
            env=self.env,
            stderr=subprocess.PIPE,
            text=True,
            user=self.user,
            group=self.user,
        )

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command of the image to its end."""
        return subprocess.run(
            ["/bin/sh", "-c", self.inside(command)],
            cwd=self.cwd,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            user=self.user,
            group=self.user,
        )

    def _run(self, command: str) -> None:
        if self.user is None:
            command = re.sub(r" -[og] \d+", "", command)  # only root may give files away
        done = self.shell(command)
        assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"

    def _copy(self, text: str) -> None:
        *sources, target = text.split()
        if sources[0].startswith("--from="):
            # Both stages share the folder, so what the first made is where the second wants it.
            assert Path(self.inside(sources[1])).is_dir(), text
            return
        allowed = list(context_files(self.context))
        for source in sources:
            found = [file for file in allowed if file == source or file.startswith(f"{source}/")]
            assert found, f"COPY {source}: not in the build context"
            into = self.cwd / target
            for file in found:
                place = into / file if file == source else into / Path(file).relative_to(source)
                self._folder(place.parent)
                shutil.copyfile(self.context / file, place)
                self._own(place)

    def _folder(self, path: Path) -> Path:
        for folder in (*reversed(path.parents), path):
            if folder.is_relative_to(self.root) and not folder.exists():
                folder.mkdir()
                self._own(folder)
        return path

    def _own(self, path: Path) -> None:
        if self.user is not None:
            os.chown(path, self.user, self.user)


def exec_form(text: str) -> list[str]:
    """CMD in its JSON form; the shell form would put a shell between the engine's SIGTERM and the daemon."""
    command: list[str] = json.loads(text)
    return command
