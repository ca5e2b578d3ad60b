"""Pictures of the dashboard for the documentation: `make screenshots`. A real daemon, recorded runs, Debian's Chromium."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from harness.browser import PHONE, WIDE, launched, opened  # noqa: E402
from harness.daemon_process import DaemonProcess  # noqa: E402
from harness.recorded_trainer import RecordedTrainer, recording  # noqa: E402


class Shot(NamedTuple):
    """A picture: name, address, what must be there first, size, theme."""

    name: str
    route: str
    ready: str
    size: tuple[int, int] = WIDE
    theme: str = "light"


SHOTS = (
    Shot("dashboard-fleet", "/", ".spark"),
    Shot("dashboard-run", "/runs/cartpole-seed1", ".panel canvas", (1280, 900)),
    Shot("dashboard-run-dark", "/runs/cartpole-seed3", ".panel canvas", (1280, 900), "dark"),
    Shot("dashboard-anomaly", "/anomalies/kl_extreme", "table.moved tbody tr", (1280, 900)),
    Shot("dashboard-phone", "/runs/cartpole-seed3", ".panel canvas", PHONE),
)
RUNS = (
    ("P01", "cartpole-seed1", 150, {"group": "cartpole"}),
    ("plain-cartpole", "cartpole-seed2", 180, {"group": "cartpole", "skip": dict.fromkeys(range(60, 64), "outbox full")}),
    ("P05", "cartpole-seed3", None, {"group": "cartpole"}),
    ("plain-recall", "recall-lstm", 30, {"group": "recall"}),
)


def main() -> None:
    """Take all of them."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home, DaemonProcess(Path(home)) as daemon, launched() as browser:
        trainers = [RecordedTrainer(recording(case), daemon.environment, run, **given) for case, run, _, given in RUNS]
        for trainer, (_, _, count, _) in zip(trainers, RUNS, strict=True):
            trainer.send(count)
            trainer.wait()
        for shot in SHOTS:
            with opened(browser, daemon, size=shot.size, color_scheme=shot.theme, device_scale_factor=1.5) as tab:
                kind = shot.route.rpartition("/anomalies/")[2]
                found = daemon.get(f"/api/v1/anomalies?kind={kind}")["items"] if kind != shot.route else []
                page = tab.go(f"/anomalies/{found[0]['id']}" if found else shot.route, shot.ready)
                page.wait_for_timeout(800)  # the last frame of the charts
                path = IMAGES / f"{shot.name}.png"
                page.screenshot(path=path)
                print(f"{path.relative_to(ROOT)} {path.stat().st_size // 1024} kB")
        for trainer in trainers:
            trainer.link.close(1.0)


if __name__ == "__main__":
    main()
