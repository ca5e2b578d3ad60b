"""GET detectors."""

from __future__ import annotations

from gradwatch_daemon.api import service_models
from gradwatch_daemon.api.context import BrokenDetector
from gradwatch_daemon.catalogue import describe
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile
from harness.fake_api import make_daemon


async def test_detectors_of_every_profile_are_valid_json_also_where_a_limit_is_off() -> None:
    """A floor that only the user can know is infinite until it is configured."""
    for profile in PROFILES:
        answer = await make_daemon(catalogue=describe(load_profile(profile))).get("/detectors")
        assert answer.status_code == 200, answer.text
        service_models.DetectorList.model_validate(answer.json())


async def test_detectors_round_trip_every_field() -> None:
    """The thresholds in force beside those of the profile, and the line that feeds each signal."""
    broken = BrokenDetector("mine", "pkg 1.0", "ImportError: no")
    document = (await make_daemon(profile="classic", broken=[broken]).get("/detectors")).json()

    service_models.DetectorList.model_validate(document)
    assert (document["profile"], document["next"]) == ("classic", None)
    assert [item["kind"] for item in document["items"]] == ["nonfinite", "kl-spike"]
    assert document["items"][0] == {
        "kind": "nonfinite",
        "title": "NaN or Inf",
        "meaning": "Something is no number.",
        "severity": "critical",
        "needs": [
            {"signal": "grad.norm.mean", "call": "step", "line": "mon.step()", "optional": True, "undefined": "take a step"}
        ],
        "thresholds": [
            {
                "name": "count",
                "value": 1.0,
                "default": 0.0,
                "comparison": ">",
                "unit": "count",
                "meaning": "elements that are not finite",
                "signal": "grad.norm.nonfinite",
                "severity": "critical",
            }
        ],
        "votes": [{"at": "warning", "k": 1, "n": 2, "gives": "critical"}],
        "formula": "count > 0",
        "warm_up": "none",
        "fails_when": "never called",
        "source": "by definition",
        "try": ["Lower the learning rate."],
        "origin": "pkg 2.0",
    }
    assert document["broken"] == [{"name": "mine", "origin": "pkg 1.0", "reason": "ImportError: no"}]
