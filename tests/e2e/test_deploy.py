"""deploy/: every file read by the program it is for, or by a parser of its format where that program is not installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gradwatch_contracts.control import Severity
from gradwatch_daemon.api.metrics import DETECTOR_STATES
from gradwatch_daemon.cli.parser import build_parser
from gradwatch_daemon.config import AGENT_ENV, PREFIX, Config
from harness.daemon_process import DaemonProcess
from harness.prometheus import read_exposition

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
RULE_TESTS = DEPLOY / "prometheus" / "rules.test.yml"
DASHBOARD = DEPLOY / "grafana" / "gradwatch.json"
SCRIPT = DEPLOY / "slurm" / "train.sbatch"
NOT_OURS = {"up", "ALERTS"}
"""Series that Prometheus makes itself."""


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """/metrics of a real daemon."""
    with DaemonProcess(tmp_path_factory.mktemp("daemon")) as daemon:
        asked = {"Authorization": f"Bearer {daemon.token}"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{daemon.connection.url}/metrics", headers=asked), timeout=30
        ) as page:
            yield page.read().decode()


def rules() -> list[dict[str, Any]]:
    """Every alerting rule."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    """Every expression of the rules, their tests and the dashboard."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    tests = yaml.safe_load(RULE_TESTS.read_text(encoding="utf-8"))["tests"]
    found = [rule["expr"] for rule in rules()]
    found += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    found += [note["expr"] for note in board["annotations"]["list"]]
    found += [variable["definition"] for variable in board["templating"]["list"] if "definition" in variable]
    found += [case["expr"] for test in tests for case in test.get("promql_expr_test", [])]
    return found + [series["series"] for test in tests for series in test["input_series"]]


def test_every_metric_of_an_expression_is_on_the_page_of_a_real_daemon(scraped: str) -> None:
    """An expression over a metric that was renamed is an alert that never fires."""
    known = set(read_exposition(scraped))
    named = {name for text in expressions() for name in re.findall(r"\b(?:gradwatch_\w+|up|ALERTS)\b", text)}
    assert len(named) > 20
    assert named - NOT_OURS - known == set()


def test_every_label_value_of_an_expression_is_one_that_there_is() -> None:
    """A severity or state that is misspelt matches nothing."""
    known = {"severity": {one.value for one in Severity}, "state": set(DETECTOR_STATES)}
    for text in expressions():
        for label, value in re.findall(r'\b(severity|state)="([^"]*)"', text):
            assert value in known[label], text


def test_every_alert_has_a_test() -> None:
    """And every alert tested is there. Losses, failures and refusals are tested by their expression, for their text has a
    number that Prometheus extrapolates."""
    by_expression = {"GradwatchTelemetryLoss", "GradwatchCommitFailures", "GradwatchFramesRefused"}
    tests = yaml.safe_load(RULE_TESTS.read_text(encoding="utf-8"))["tests"]
    firing = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    named = {rule["alert"] for rule in rules()}
    assert firing | by_expression == named
    written = [re.sub(r"\s+", " ", rule["expr"]) for rule in rules() if rule["alert"] in by_expression]
    tried = [case["expr"] for test in tests for case in test.get("promql_expr_test", [])]
    assert sorted(f"count({text})" for text in written) == sorted(tried)


def _run(tool: str, *arguments: str, **more: Any) -> None:
    """Run a linter of the system; without it, say so, and where `CI` is set fail: it must not go missing there."""
    program = shutil.which(tool)
    if program is None:
        why = f"{tool} is not installed; the file is only parsed"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("words", [("check", "rules", RULES.name), ("test", "rules", RULE_TESTS.name)])
def test_rules_pass_promtool(words: tuple[str, ...]) -> None:
    """The unit tests of the rules, by Prometheus itself."""
    _run("promtool", *words, cwd=RULES.parent)


def test_scrape_configuration_passes_promtool() -> None:
    """As far as it can be said without the token file."""
    _run("promtool", "check", "config", "--syntax-only", "prometheus.yml", cwd=RULES.parent)


def test_metrics_page_passes_promtool(scraped: str) -> None:
    """Names, units and HELP by the conventions."""
    _run("promtool", "check", "metrics", input=scraped)


def test_dashboard_names_no_data_source_and_no_panel_twice() -> None:
    """It is imported where the data source has another id; panels lie beside each other."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])} == {"${datasource}"}
        place = panel["gridPos"]
        taken = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        cells |= taken
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("file", sorted(DEPLOY.rglob("*.yml")) + sorted(DEPLOY.rglob("*.yaml")), ids=lambda file: file.name)
def test_yaml_is_yaml_and_has_no_key_twice(file: Path) -> None:
    """The loader takes the last of two keys in silence, and so would whoever reads the file."""

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep) for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{file.name}: {keys}"
            return super().construct_mapping(node, deep)

    assert all(yaml.load_all(file.read_text(encoding="utf-8"), Strict))


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Every pod of the manifests."""
    found = []
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            spec = document["spec"]
            if "template" in spec:
                claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
                pod = spec["template"]["spec"]
                pod["volumes"] = [*pod.get("volumes", []), *({"name": name} for name in claims)]
                found.append((f"{file.name}: {document['kind']}", pod))
    return found


@pytest.mark.parametrize(("name", "pod"), pods())
def test_pod_says_only_what_gradwatch_takes(name: str, pod: dict[str, Any]) -> None:
    """Flags by the real parser, variables by the configuration, mounts that have a volume, probes that have a port."""
    volumes = {volume["name"] for volume in pod["volumes"]}
    variables = AGENT_ENV | {PREFIX + key.upper() for key in Config.model_fields}
    for container in pod["containers"] + pod.get("initContainers", []):
        said = container.get("args") or container["command"]
        assert build_parser().parse_known_args(said[1 : said.index("--") if "--" in said else None])[1] == []
        named = {variable["name"] for variable in container["env"]}
        assert {word for word in named if word.startswith(PREFIX)} <= variables
        used = set(re.findall(r"\$\((\w+)\)", " ".join(said)))
        assert used <= named
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in (container.get("livenessProbe"), container.get("readinessProbe")):
            assert probe is None or probe["httpGet"]["port"] in ports
    assert pod["securityContext"]["runAsNonRoot"]


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda unit: unit.name)
def test_unit_passes_systemd_and_starts_what_there_is(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` on the unit with a program that exists; the command line by our own parser."""
    text = unit.read_text(encoding="utf-8")
    command = re.search(r"^ExecStart=.*?gradwatch (serve.*?)'?$", text, re.MULTILINE)
    assert command
    build_parser().parse_args(command.group(1).split())
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE), encoding="utf-8")
    _run("systemd-analyze", "verify", "--man=no", str(copy))


def test_slurm_script_passes_shellcheck() -> None:
    """Quoting and unset variables."""
    _run("shellcheck", str(SCRIPT))


@pytest.mark.parametrize("code", [0, 7])
def test_slurm_script_ends_as_the_trainer_does_and_brings_the_data_home(code: int, tmp_path: Path) -> None:
    """Without Slurm: its variables, a real daemon, a trainer that ends with `code`. Nothing is left on the node."""
    home, node, tools = (tmp_path / name for name in ("home", "node", "bin"))
    for folder in (home, node, tools):
        folder.mkdir()
    shim = tools / "gradwatch"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m gradwatch_daemon.cli.main "$@"\n')
    shim.chmod(0o755)
    (tmp_path / "train.py").write_text(f"import sys\nsys.exit({code})\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    job = {
        "HOME": str(home),
        "SLURM_TMPDIR": str(node),
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NAME": "ant",
        "TRAINER": sys.executable,
    }
    environment = {**kept, **job, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    done = subprocess.run(
        ["bash", str(SCRIPT)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
    )

    assert done.returncode == code, done.stdout + done.stderr
    assert (home / "gradwatch" / "ant-41" / "gradwatch.db").is_file()
    assert list(node.iterdir()) == []
