"""`gradwatch export`: what was recorded, as files of your own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch_daemon.cli.client import local_daemon
from gradwatch_daemon.cli.replay import data_dir_of
from gradwatch_daemon.cli.serve import daemon_extra

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Copy the whole store as it is at this moment into one file; a daemon may run on it.

    Raises:
        GradwatchError: `recording-unreadable` where there is no store; `backup-failed` when the file cannot be written.
    """
    with daemon_extra():
        from gradwatch_daemon.config import load_config
        from gradwatch_daemon.offline import back_up_store
    config = load_config({"data_dir": args.data_dir}, os.environ, Path.cwd())
    source = data_dir_of(config, local_daemon(os.environ, os.getuid()))
    target = Path(args.backup).absolute()
    size = back_up_store(source, target)
    if output.as_json:
        output.document({"file": str(target), "bytes": size, "source": str(source)})
    else:
        output.line(str(target))
        output.note(f"{size / 1e6:.1f} MB, everything committed up to now. Read it with `gradwatch replay {target} --run RUN`.")
    return 0
