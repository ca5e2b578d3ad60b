"""`gradwatch top` in a terminal of its own, over a running daemon and a live trainer: look, escalate, lose the daemon, quit."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

from harness import small_agent
from harness.daemon_process import DaemonProcess, python, wait_for

if TYPE_CHECKING:
    from pathlib import Path

RUN = "ant-ppo"
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?<>=$]*[a-zA-Z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|P[^\x1b]*\x1b\\|[()][A-Z0-9]|[=>78])")


class Terminal:
    """A command on a pseudo-terminal of 80 by 24; `said` is everything it wrote, without its control sequences."""

    def __init__(self, daemon: DaemonProcess, *argv: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {**daemon.environment, "TERM": "xterm-256color", "PYTHONUTF8": "1"}
        command = [sys.executable, "-m", "gradwatch_daemon.cli.main", *argv]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)
        os.close(slave)
        self._raw = b""

    @property
    def said(self) -> str:
        """Since the last `clear`."""
        return _CONTROL.sub("", self._raw.decode("utf-8", "replace"))

    def press(self, keys: str) -> None:
        """As if typed; what was written before is forgotten."""
        self._raw = b""
        os.write(self._master, keys.encode())

    def until(self, text: str, seconds: float = 30.0) -> None:
        """Read until a text has been written."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            left = deadline - time.monotonic()
            assert left > 0, f"waited {seconds} s for {text!r}; it wrote\n{self.said[-4000:]}"
            if select.select([self._master], [], [], min(left, 0.2))[0]:
                self._raw += os.read(self._master, 65536)

    def ended(self, seconds: float = 20.0) -> int:
        """The exit code; what it still writes is read, or it would wait for us."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self._master], [], [], 0.05)[0]:
                try:
                    self._raw += os.read(self._master, 65536)
                except OSError:  # the other end is closed
                    break
        return self.process.wait(max(deadline - time.monotonic(), 1.0))

    def close(self) -> None:
        """End it whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._master)


def test_top_over_a_live_run_escalates_and_survives_the_daemon(tmp_path: Path) -> None:
    """The trainer's own answer is what makes the screen say that it was applied; a killed daemon is said."""
    with DaemonProcess(tmp_path) as daemon:
        trainer = python(daemon, small_agent.__file__, RUN, "9000", "10", str(tmp_path / "truth.jsonl"))
        wait_for(lambda: ((daemon.run(RUN) or {}).get("update_last") or 0) > 3, "the first updates")
        terminal = Terminal(daemon, "top")
        try:
            terminal.until(RUN)
            terminal.press("\r")
            terminal.until("sys.update_ms")
            terminal.press("e")
            terminal.until("LEVEL UPDATES")
            terminal.press("\r")
            terminal.until("Collecting at debug since update")
            (escalation,) = daemon.get(f"/api/v1/runs/{RUN}/escalations")["items"]
            assert (escalation["level"], escalation["updates"], escalation["origin"]) == ("debug", 50, "operator")

            terminal.press("")
            daemon.kill()
            terminal.until("Not connected")
            daemon.start()
            terminal.until("● live")
            terminal.press("q")
            assert terminal.ended() == 0
        finally:
            terminal.close()
            trainer.terminate()
            trainer.wait(10)
