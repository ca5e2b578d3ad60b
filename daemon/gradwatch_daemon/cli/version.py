"""`gradwatch version`: of this command. The daemon's own is in `gradwatch status`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gradwatch_contracts import PROTOCOL_MAJOR, __version__

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Print the version; needs no daemon."""
    python = ".".join(map(str, sys.version_info[:3]))
    if output.as_json:
        output.document({"version": __version__, "protocol": PROTOCOL_MAJOR, "python": python})
    else:
        output.line(f"gradwatch {__version__} (protocol {PROTOCOL_MAJOR}, Python {python})")
    return 0
