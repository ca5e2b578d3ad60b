"""`gradwatch top`: runs, their signals and anomalies in a terminal, live. It speaks HTTP and nothing else."""

from __future__ import annotations

from gradwatch_daemon.cli.top.command import run

__all__ = ["run"]
