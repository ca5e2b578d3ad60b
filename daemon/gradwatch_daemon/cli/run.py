"""`gradwatch run -- COMMAND`: set the environment and become the command, so exit code, signals and terminal are its own."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gradwatch_contracts.connection import ENV_SPOOL, state_dir
from gradwatch_contracts.launch import ENV_EVERY, ENV_PATCHES, PATCHES, STARTUP_FOLDER
from gradwatch_contracts.names import RUN, check_name
from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from gradwatch_daemon.cli.output import Output

EXIT_NO_COMMAND, EXIT_NOT_EXECUTABLE = 127, 126
"""As the shell and env(1) have them, since it is the command that has no exit code of its own."""


def run(args: argparse.Namespace, output: Output) -> int:
    """Become the command; returns only by raising.

    Raises:
        CommandError: there is no command, or it cannot be run.
        GradwatchError: `invalid-argument`: the run's name is none.
    """
    command: list[str] = args.command
    if not command:
        raise CommandError(
            "There is nothing to run.",
            next_step="Put the command behind two dashes: gradwatch run -- python train.py",
            exit_code=EXIT_USAGE,
        )
    environment = launch_environment(os.environ, args.run, args.no_patch, args.every, args.no_spool)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise CommandError(
            f"{command[0]} cannot be run.",
            why=f"{error.strerror}.",
            next_step="Check the name, and the PATH of this shell." if missing else "Check that it is an executable file.",
            exit_code=EXIT_NO_COMMAND if missing else EXIT_NOT_EXECUTABLE,
        ) from error


def launch_environment(
    env: Mapping[str, str], run: str | None, left_alone: Sequence[str], every: int, no_spool: bool = False
) -> dict[str, str]:
    """The command's environment: `sitecustomize` of the agent's start-up folder comes before any other; a spool for what no
    daemon takes, where the environment does not say another.

    Raises:
        CommandError: the agent is not installed beside this command.
        GradwatchError: `invalid-argument`: the run's name is none.
    """
    agent = find_spec("gradwatch_agent")
    if agent is None or not agent.submodule_search_locations:
        raise CommandError(
            "The agent is not installed beside this command.",
            next_step="Install it from the clone of gradwatch: pip install -e .",
        )
    startup = os.path.join(agent.submodule_search_locations[0], STARTUP_FOLDER)
    paths = [startup, *filter(None, [env.get("PYTHONPATH", "")])]
    given = {} if run is None else {"GRADWATCH_RUN_ID": check_name(run, RUN, "gradwatch run --run")}
    patches = ",".join(name for name in PATCHES if name not in left_alone)
    if no_spool:
        given[ENV_SPOOL] = ""
    elif ENV_SPOOL not in env and state_dir(env):
        given[ENV_SPOOL] = f"{state_dir(env)}/spool"
    return {**env, **given, "PYTHONPATH": os.pathsep.join(paths), ENV_PATCHES: patches, ENV_EVERY: str(every)}
