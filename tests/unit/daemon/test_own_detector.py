"""Detectors of other packages: the documented example, the fence around one that fails, and what is refused at the door."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_daemon.catalogue import describe
from gradwatch_daemon.detect.catalogue import Extensions, load_profile
from gradwatch_daemon.detect.extensions import load_extensions
from gradwatch_daemon.detect.own import Memory, Need, Severity, Stage, Threshold, Update, detector
from harness.blocks import Watch, joined, signal_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gradwatch_daemon.detect.catalogue import Profile
    from gradwatch_daemon.detect.spec import Spec

KL = "policy.kl.k3"
PAGE = (Path(__file__).parents[3] / "docs" / "own-detector.md").read_text(encoding="utf-8")
NAN = float("nan")


def example() -> Spec:
    """The detector of the documentation, from its own text."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module = ModuleType("reward_watch")
    exec(compile(source, "docs/own-detector.md", "exec"), module.__dict__)
    spec: Spec = module.__dict__["DETECTOR"]
    return spec


def own(measure: Callable[[Update, Memory], float | None], **changed: Any) -> Spec:
    """A detector of the KL with a warning above 1 and a critical above 2, clear at half."""
    given = {
        "stage": Stage.POLICY,
        "title": "Own",
        "meaning": "Of another package.",
        "needs": [Need(KL, "pass the log-probabilities")],
        "thresholds": [
            Threshold("warn", "", ">", 1.0, "Own number", "", Severity.WARNING, clear=0.5),
            Threshold("crit", "", ">", 2.0, "Own number", "", Severity.CRITICAL, clear=0.25),
        ],
        "formula": "own > 1",
        "fails_when": "never",
        "source": "a test",
        "tries": ["look"],
    }
    return detector("own_kind", measure, **{**given, **changed})


def profile(*specs: Spec, name: str = "default", version: str = "1.0", thresholds: Any = None) -> Profile:
    return load_profile(name, thresholds, Extensions(specs, {spec.kind: f"pkg {version}" for spec in specs}))


def kl(values: list[object], **given: Any) -> Any:
    """A block of these KLs."""
    return signal_block(len(values), policy__kl__k3=values, **given)


def plain(update: Update, _: Memory) -> float | None:
    """The KL itself."""
    return update[KL]


def third(update: Update, memory: Memory) -> float | None:
    """Remembers, is silent at first, and fails on the number of updates it was told."""
    seen = memory.push("seen", update[KL], 3)
    memory.keep("asked", memory.get("asked", 0.0) + 1)
    if memory.get("asked") == 9:
        raise RuntimeError("the ninth")
    return None if len(seen) < 3 else sum(seen)


# -- the example ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "classic"])
def test_documented_example_finds_a_reward_that_was_rescaled(name: str) -> None:
    """Learning, then quiet at five times, then a warning above it, critical at fifty, and over again."""
    watch = Watch(profile(example(), name=name))
    assert watch.check(signal_block(30, reward__step__std=2.0))["reward_rescaled"].code.tolist() == [3] * 30
    seen = watch.check(signal_block(5, start=30, reward__step__std=[10.0, 10.5, 101.0, 9.0, 4.0]))["reward_rescaled"]
    assert (seen.code.tolist(), seen.severity[1:3].tolist()) == ([1, 2, 2, 1, 0], [1, 2])
    assert seen.limit[1:3].tolist() == [5.0, 50.0]


def test_documented_example_becomes_an_anomaly_with_its_own_words() -> None:
    """A sentence, what to try, the hash of the rules it was found by."""
    rules = profile(example())
    watch = Watch(rules)
    watch.feed(signal_block(40, reward__step__std=1.0))
    (anomaly,) = [a for a in watch.feed(signal_block(1, start=40, reward__step__std=8.0)) if a.kind == "reward_rescaled"]
    assert (anomaly.severity, anomaly.update_onset, anomaly.value, anomaly.stage) == (Severity.WARNING, 40, 8.0, "reward")
    assert anomaly.sentence == (
        "Spread of the rewards over that of the beginning 8 at update 40, limit 5, since update 40."
    ), anomaly.sentence  # fmt: skip
    assert anomaly.rules_hash == rules.rules_hash
    assert anomaly.tries[0].startswith("Look for a reward wrapper")


def test_catalogue_names_the_package_and_its_thresholds_can_be_configured() -> None:
    """As for any other detector."""
    rules = profile(example(), thresholds={"reward_rescaled": {"factor": 3.0}})
    (shown,) = [info for info in describe(rules) if info.kind == "reward_rescaled"]
    assert (shown.origin, shown.thresholds[0].value, shown.thresholds[0].default) == ("pkg 1.0", 3.0, 5.0)
    assert {info.origin for info in describe(rules)} == {"gradwatch", "pkg 1.0"}
    watch = Watch(rules)
    watch.check(signal_block(30, reward__step__std=2.0))
    assert watch.check(signal_block(1, start=30, reward__step__std=8.0))["reward_rescaled"].code.tolist() == [2]


# -- the fence ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code", "limit"),
    [(1.0, 1, NAN), (np.nextafter(np.float32(1), np.float32(2)), 2, 1.0), (2.5, 2, 2.0), (0.5, 0, NAN), (0.75, 1, NAN)],
)
def test_own_number_is_compared_strictly_and_held_until_clear(value: float, code: int, limit: float) -> None:
    """At the limit is not beyond it; of two limits the graver counts."""
    for block in (kl([float(value)]), kl([float(value)] * 2)):
        seen = Watch(profile(own(plain))).check(block)["own_kind"]
        assert seen.code.tolist() == [code] * len(block)
        if code == 2:
            assert seen.limit[0] == limit


def test_own_detector_is_blind_where_a_need_is_missing_nan_or_the_update_was_cut_short() -> None:
    """It is not asked then; the line to add is in the reason."""
    asked: list[int] = []

    def measure(update: Update, _: Memory) -> float | None:
        asked.append(update.number)
        return update[KL]

    watch = Watch(profile(own(measure)))
    flags = [0, 0, 0, int(RowFlag.PARTIAL), 0]
    seen = watch.check(kl([0.1, NAN, Status.NOT_CALLED, 5.0, 0.1], flags=flags))["own_kind"]
    assert seen.code.tolist() == [0, 4, 4, 4, 0]
    assert asked == [0, 4]
    assert "pass the log-probabilities" in watch.check(kl([Status.NOT_CALLED], start=5))["own_kind"].reason
    assert watch.check(signal_block(1, start=6, drop=[KL]))["own_kind"].code.tolist() == [4]
    assert asked == [0, 4]


def test_own_optional_need_is_none_where_it_is_missing() -> None:
    """Without it the detector still judges."""
    got: list[float | None] = []

    def measure(update: Update, _: Memory) -> float | None:
        got.append(update.signals["opt.lr"])
        return 0.0

    needs = [Need(KL, "x"), Need("opt.lr", "y", optional=True)]
    Watch(profile(own(measure, needs=needs))).check(kl([0.1, 0.1], opt__lr=[Status.LEVEL, 0.25]))
    assert got == [None, 0.25]


def test_own_detector_of_a_users_scalar_is_given_it_by_its_key() -> None:
    """`log({"temperature": …})` is the signal `user` of subject `temperature`."""
    spec = own(lambda update, _: update["user"], needs=[Need("user", "call mon.log()")], subjects=["temperature"])
    watch = Watch(profile(spec))
    seen = watch.check(signal_block(2, user__of__temperature=[0.1, 3.0], user__of__other=9.0))
    assert seen["own_kind:temperature"].code.tolist() == [0, 2]


def test_own_detector_that_fails_is_blind_from_there_on_and_nothing_else_is(caplog: pytest.LogCaptureFixture) -> None:
    """The rows before are judged; the reason names update and exception; the others find what they find without it."""
    values: list[object] = [0.1] * 20
    watch, alone = Watch(profile(own(third))), Watch()
    seen, others = watch.check(kl(values)), alone.check(kl(values))
    assert seen["own_kind"].code.tolist() == [3, 3, *[0] * 6, *[4] * 12]
    assert seen["own_kind"].reason == "it failed on update 8 and is not asked again in this run (RuntimeError: the ninth)"
    for kind, verdicts in others.items():
        assert seen[kind].code.tolist() == verdicts.code.tolist()
    restored = Watch(profile(own(third)))
    restored.state.load(watch.state.dump())
    assert restored.check(kl([0.1], start=20))["own_kind"].reason == seen["own_kind"].reason


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.1, 0.9, 1.5, 7.0, NAN, float("inf"), Status.NOT_CALLED]), min_size=1, max_size=24),
    cuts=st.lists(st.integers(1, 6), max_size=24),
)
def test_own_detector_in_any_split_says_and_remembers_the_same(values: list[object], cuts: list[int]) -> None:
    """Also where it fails in the middle of a block."""
    whole, parts = Watch(profile(own(third))), Watch(profile(own(third)))
    block = kl(values)
    said = whole.check(block)["own_kind"]
    codes: list[int] = []
    start = 0
    for size in [*cuts, len(values)]:
        piece = block.select(slice(start, start + size))
        if len(piece):
            codes += parts.check(piece)["own_kind"].code.tolist()
        start += size
    assert codes == said.code.tolist()
    assert parts.state.dump() == whole.state.dump()
    assert joined([block, block]) is not None


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (lambda update, memory: memory.keep("x", "no number"), "ValueError"),
        (lambda update, memory: [memory.keep(f"n{n}", n) for n in range(300)], "256 numbers"),
        (lambda update, memory: memory.push("x", 1.0, 10**6), "size"),
        (lambda update, memory: "text", "ValueError"),
        (lambda update, memory: update["reward.step.std"], "KeyError"),
        (lambda update, memory: 1 / 0, "ZeroDivisionError"),
    ],
    ids=["memory", "too much", "too long", "text", "undeclared", "raises"],
)
def test_own_detector_that_misuses_its_arguments_is_disabled_with_the_reason(measure: Any, said: str) -> None:
    """What it keeps must be storable, or the checkpoint of the run would fail."""
    watch = Watch(profile(own(measure)))
    seen = watch.check(kl([0.1, 0.1]))["own_kind"]
    assert seen.code.tolist() == [4, 4]
    assert said in seen.reason
    watch.state.load(watch.dump()[: len(watch.state.dump())])


def test_own_detector_without_a_number_is_learning() -> None:
    """None and NaN: nothing is said of health."""
    for answer in (None, NAN):
        seen = Watch(profile(own(lambda update, memory, answer=answer: answer))).check(kl([0.1]))["own_kind"]
        assert (seen.code.tolist(), seen.reason) == ([3], "it has nothing to say yet")


# -- the door -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module to load from."""
    module = ModuleType("own_package")
    monkeypatch.setitem(sys.modules, "own_package", module)
    return module


def _load(*names: str) -> Extensions:
    return load_extensions([EntryPoint(name, f"own_package:{name}", "gradwatch.detectors") for name in names])


def test_entry_points_that_are_wrong_are_named_with_the_reason_and_the_others_are_loaded(package: ModuleType) -> None:
    """Whatever another's module does, the daemon starts."""
    package.good = own(plain)  # type: ignore[attr-defined]
    package.again = own(plain)  # type: ignore[attr-defined]
    package.text = "no spec"  # type: ignore[attr-defined]
    package.taken = own(plain)  # type: ignore[attr-defined]
    object.__setattr__(package.taken, "kind", "nonfinite")  # type: ignore[attr-defined]
    package.named = own(plain)  # type: ignore[attr-defined]
    object.__setattr__(package.named, "kind", "Bad Kind")  # type: ignore[attr-defined]
    package.signal = own(plain, needs=[Need("policy.future", "x")])  # type: ignore[attr-defined]
    package.needless = own(plain, needs=[Need(KL, "x", optional=True)])  # type: ignore[attr-defined]
    package.limitless = own(plain, thresholds=[Threshold("a", "", ">", 1.0, "x")])  # type: ignore[attr-defined]
    names = ("good", "missing", "text", "taken", "named", "signal", "needless", "limitless")
    found = _load(*names)
    assert [spec.kind for spec in found.specs] == ["own_kind"]
    reasons = {broken.name: broken.reason for broken in found.broken}
    assert set(reasons) == set(names) - {"good"}
    for name, said in (
        *(("missing", "AttributeError"), ("text", "detector() returns, got str"), ("taken", "named 'nonfinite'")),
        *(("named", "'Bad Kind'"), ("signal", "policy.future"), ("needless", "not optional"), ("limitless", "severity")),
    ):
        assert said in reasons[name]
    assert [broken.name for broken in _load("good", "again").broken] == ["good"]


def test_entry_point_whose_module_exits_does_not_end_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sys.exit at import is somebody's script, not a detector."""
    (tmp_path / "own_script.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (broken,) = load_extensions([EntryPoint("x", "own_script:X", "gradwatch.detectors")]).broken
    assert "SystemExit" in broken.reason


def test_rules_hash_knows_the_package_and_its_version() -> None:
    """Another version may find something else; without packages nothing changes."""
    hashes = {
        load_profile("default").rules_hash,
        profile(own(plain)).rules_hash,
        profile(own(plain), version="1.1").rules_hash,
        profile(own(plain), thresholds={"own_kind": {"warn": 1.5}}).rules_hash,
    }
    assert len(hashes) == 4
    assert load_profile("default", None, Extensions()).rules_hash == load_profile("default").rules_hash


def test_installed_package_is_found_with_its_name_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip leaves it on disk."""
    install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [point for found in distributions(path=[str(tmp_path)]) for point in found.entry_points]
    found = load_extensions(points)
    assert (found.origins, found.broken) == ({"reward_rescaled": "reward-watch 1.0"}, ())


def install(path: Path) -> None:
    """The documented package, as an installer leaves it."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (points,) = re.findall(r'\[project\.entry-points\."gradwatch\.detectors"\]\n(.*?)```', PAGE, re.DOTALL)
    (path / "reward_watch.py").write_text(source)
    info = path / "reward_watch-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reward-watch\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gradwatch.detectors]\n" + points.replace('"', ""))
