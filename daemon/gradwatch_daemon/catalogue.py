"""The detectors of a profile as HTTP, the command line and a replay describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.api.context import DetectorInfo, NeedInfo, ThresholdInfo, VoteInfo
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.records.rules import Measure

if TYPE_CHECKING:
    from gradwatch_daemon.detect.catalogue import Profile
    from gradwatch_daemon.records.rules import Rule


BUILT_IN = "gradwatch"
"""Origin of the detectors that come with us."""


def describe(profile: Profile) -> tuple[DetectorInfo, ...]:
    """The rules in force, and beside each threshold what the profile has without the configuration."""
    plain = load_profile(profile.name, extensions=profile.extensions).rules
    origins = profile.extensions.origins
    return tuple(_detector(rule, plain[kind], origins.get(kind, BUILT_IN)) for kind, rule in profile.rules.items())


def _detector(rule: Rule, plain: Rule, origin: str) -> DetectorInfo:
    return DetectorInfo(
        kind=rule.kind,
        title=rule.title,
        meaning=rule.meaning,
        severity=max((vote.gives for vote in rule.votes), key=lambda severity: severity.rank),
        needs=tuple(
            NeedInfo(need.signal, SIGNALS[need.signal].spec.call, need.add, need.optional, need.undefined)
            for need in rule.needs
        ),
        thresholds=tuple(
            ThresholdInfo(
                t.key,
                t.limit,
                plain.threshold(t.key).limit,
                t.op,
                t.unit,
                t.quantity,
                t.signal if t.measure is Measure.VALUE and not t.series else "",
                t.severity,
            )
            for t in rule.thresholds
        ),
        votes=tuple(VoteInfo(vote.at, vote.k, vote.n, vote.gives) for vote in rule.votes),
        formula=rule.formula,
        warm_up=f"{rule.warm_up} measured updates" if rule.warm_up else "none",
        fails_when=rule.fails_when,
        source=rule.source,
        tries=rule.tries,
        origin=origin,
    )
