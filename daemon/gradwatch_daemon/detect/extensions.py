"""Detectors of installed packages, found by the entry point group `gradwatch.detectors`.

One that cannot be loaded is named with its reason wherever detectors are listed; it never keeps the daemon from starting.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.detect.catalogue import CATALOGUE, Broken, Extensions, load_profile
from gradwatch_daemon.detect.own import Fenced
from gradwatch_daemon.detect.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.metadata import EntryPoint

    from gradwatch_daemon.detect.catalogue import Profile

GROUP = "gradwatch.detectors"
KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")


def load_rules(name: str, thresholds: Mapping[str, Mapping[str, float]] | None = None) -> Profile:
    """A profile with the detectors of installed packages: what a daemon detects with.

    Raises:
        GradwatchError: as `load_profile`.
    """
    return load_profile(name, thresholds, load_extensions(entry_points(group=GROUP)))


def load_extensions(found: Iterable[EntryPoint]) -> Extensions:
    """Load each entry point and check what it gives; in order of kind, so that the order of installation does not show."""
    specs: dict[str, Spec] = {}
    origins: dict[str, str] = {}
    broken: list[Broken] = []
    for point in sorted(found, key=lambda point: (point.name, point.value)):
        origin = _origin(point)
        try:
            spec = point.load()
            reason = _fault(spec, specs)
        except (Exception, SystemExit) as error:  # another's module: whatever it does, the daemon starts
            reason = f"{type(error).__name__}: {error}"[:300]
        if reason:
            broken.append(Broken(point.name, origin, reason))
            continue
        specs[spec.kind], origins[spec.kind] = spec, origin
    ordered = tuple(specs[kind] for kind in sorted(specs))
    return Extensions(ordered, {spec.kind: origins[spec.kind] for spec in ordered}, tuple(broken))


def _origin(point: EntryPoint) -> str:
    """Name and version of the package."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _fault(spec: object, known: Mapping[str, Spec]) -> str:
    """What is wrong with what an entry point gave; '' for nothing."""
    if not isinstance(spec, Spec) or not all(isinstance(variant.check, Fenced) for variant in spec.profiles.values()):
        return f"expected what gradwatch_daemon.detect.own.detector() returns, got {type(spec).__name__}"
    taken = {*known, *(other.kind for other in CATALOGUE)}
    needs = [need for variant in spec.profiles.values() for need in variant.needs]
    unknown = sorted({need.signal for need in needs} - SIGNALS.keys())
    rated = [threshold for variant in spec.profiles.values() for threshold in variant.thresholds if threshold.severity]
    faults = (
        ("" if KIND.fullmatch(spec.kind) else f"kind: expected {KIND.pattern}, got {spec.kind!r}"),
        ("" if any(not need.optional for need in needs) else "needs: expected one that is not optional, got none"),
        (f"needs: expected signals of docs/signals.md, got {', '.join(unknown)}" if unknown else ""),
        ("" if rated else "thresholds: expected one with a severity, got none"),
        (f"kind: there is another detector named {spec.kind!r}" if spec.kind in taken else ""),
    )
    return next(filter(None, faults), "")
