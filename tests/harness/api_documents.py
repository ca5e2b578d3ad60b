"""Documents as the REST API answers them, with no field at its default. A test holds them against `api/models.py`."""

from __future__ import annotations

from typing import Any

from gradwatch_contracts import __version__

Document = dict[str, Any]

COVERAGE: Document = {"received": 118, "lost": 2, "share": 0.98333, "thinned": 0}
WHOLE: Document = {"received": 118, "lost": 0, "share": 1.0, "thinned": 0}
COUNTS: Document = {"armed": 5, "learning": 1, "blind": 2, "firing": 1}
SEEING: Document = {"armed": 8, "learning": 0, "blind": 0, "firing": 0}


def run_summary(**changes: Any) -> Document:
    """One run of GET runs."""
    return {
        "run": "ant-ppo",
        "attempt": 2,
        "group": "ants",
        "state": "live",
        "evidence": "Update 120 came at 2026-01-31T12:04:59Z; one usually comes every 1.2 s.",
        "sentence": "Training, update 120 of 500. 1 critical anomaly since update 118: NaN in the loss.",
        "level": {"base": "normal", "pin": None, "effective": "debug", "revision": 7},
        "live": True,
        "sessions": 1,
        "world": 4,
        "update_last": 120,
        "updates_total": 500,
        "first_seen_at": "2026-01-31T12:00:00.000Z",
        "last_seen_at": "2026-01-31T12:05:00.250Z",
        "coverage": COVERAGE,
        "detectors": COUNTS,
        "anomalies_open": 1,
        "beside": [],
        **changes,
    }


def run_detail(**changes: Any) -> Document:
    """GET runs/{run}."""
    return {
        **run_summary(),
        "launch_id": "slurm-7",
        "agent_version": __version__,
        "verbs": ["checkpoint", "stop"],
        "levels": [
            {
                "level": "debug",
                "collectors": [
                    {"name": "core", "cost": "the rest", "share": 0.013},
                    {"name": "exemplars", "cost": "a pass", "share": 0.008},
                    {"name": "ranges", "cost": "a few kernels", "share": None},
                ],
                "signals": ["layer.grad_norm"],
                "updates": 12,
                "share": 0.021,
            }
        ],
        "allowance": {"spent": 10, "may": 12, "window": 500, "refill_update": 131},
        "actions": [{"verb": "stop", "when": "critical nonfinite", "enabled": False, "declared": True, "would_have": 2}],
        "row_last": {"made_at": "2026-01-31T12:05:00.240Z", "received_at": "2026-01-31T12:05:00.250Z"},
        "tags": {"team": "rl"},
        "labels": {"torch": "2.13"},
        "config": {"lr": 0.0003},
        "standings": [
            {"kind": "kl_spike", "subject": "", "state": "armed", "reason": "", "add": ""},
            {
                "kind": "entropy_low",
                "subject": "arm",
                "state": "blind",
                "reason": "policy.entropy.norm: add entropy=",
                "add": "add entropy=",
            },
        ],
        "losses": [{"reason": "outbox full", "records": 2}],
        "crash": None,
        "overhead": {
            "update": 40,
            "share_before": 0.024,
            "share": 0.009,
            "budget": 0.01,
            "thinned": {"ranges": 4},
            "sentence": "the agent takes 2.4% of an update's time",
        },
        **changes,
    }


def signal_item(**changes: Any) -> Document:
    """One signal of GET runs/{run}/signals."""
    return {
        "signal": "policy.kl.k3",
        "subject": "",
        "stage": "policy",
        "unit": "nats",
        "estimator": "mean of (r - 1) - log r",
        "window": "whole update",
        "sign": "nonnegative",
        "source": "update",
        "level": "normal",
        "call": "ppo",
        "update_last": 120,
        "value_last": 0.0125,
        "status": "measured",
        "reason": "measured",
        "measured": 119,
        "nonfinite": 1,
        **changes,
    }


def series(**changes: Any) -> Document:
    """GET runs/{run}/series, raw: measured, NaN, both infinities, and not measured."""
    return {
        "run": "ant-ppo",
        "attempt": 2,
        "rank": 0,
        "signal": "policy.kl.k3",
        "subject": "",
        "unit": "nats",
        "estimator": "mean of (r - 1) - log r",
        "window": "whole update",
        "bucket": 1,
        "update": [7, 8, 9, 10, 11],
        "at": [f"2026-01-31T12:00:0{second}.000Z" for second in range(5)],
        "env_steps": [1000, 2000, None, 4000, 5000],
        "low": [0.25, "NaN", "Infinity", "-Infinity", None],
        "high": [0.25, "NaN", "Infinity", "-Infinity", None],
        "last": [0.25, "NaN", "Infinity", "-Infinity", None],
        "measured": [1, 1, 1, 1, 0],
        "nonfinite": [0, 1, 1, 1, 0],
        "status": ["measured", "measured", "measured", "measured", "no_gradient"],
        "end": {"update": 120, "at": "2026-01-31T12:00:00.000Z", "env_steps": None, "value": None, "status": "no_gradient"},
        "rows": 5,
        "thinned": 0,
        "coverage": COVERAGE,
        **changes,
    }


def buckets(**changes: Any) -> Document:
    """The same in buckets of 64 updates: one with values, one of NaN alone, one where nothing was measured."""
    return series(
        bucket=64,
        update=[0, 64, 128],
        at=[f"2026-01-31T12:00:0{second}.000Z" for second in range(3)],
        env_steps=[1000, 2000, None],
        low=[0.125, None, None],
        high=[0.5, None, None],
        last=["NaN", "NaN", None],
        measured=[64, 3, 0],
        nonfinite=[1, 3, 0],
        status=["measured", "measured", "level"],
        rows=192,
        **changes,
    )


def silence(**changes: Any) -> Document:
    """One silence."""
    return {
        "id": "s1",
        "run": "ant-ppo",
        "kind": "kl_spike",
        "subject": None,
        "reason": "new clip range",
        "author": "owner",
        "created_at": "2026-01-31T12:00:00.000Z",
        "expires_at": "2026-01-31T16:00:00.000Z",
        "state": "active",
        "muted": 0,
        **changes,
    }


def anomaly(**changes: Any) -> Document:
    """One anomaly."""
    return {
        "id": "a1b2c3",
        "run": "ant-ppo",
        "attempt": 2,
        "rank": 0,
        "kind": "ratio_explosion",
        "subject": "",
        "severity": "warning",
        "state": "firing",
        "update_onset": 117,
        "update_fired": 118,
        "update_last": 120,
        "update_resolved": None,
        "fired_at": "2026-01-31T12:04:58.000Z",
        "count": 3,
        "value": 7.5,
        "limit": 5.0,
        "baseline": None,
        "status": {"baseline": "the rule has none"},
        "sentence": "The probability ratio reached 7.5 (limit 5) at update 118.",
        "root": {"update": 117, "minibatch": 4, "stage": "policy"},
        "attached": [
            {
                "kind": "kl_spike",
                "subject": "",
                "severity": "warning",
                "update_onset": 118,
                "update_fired": 118,
                "value": "NaN",
                "limit": 0.1,
            }
        ],
        "try": ["Lower the learning rate.", "Use fewer epochs."],
        "evidence": {
            "series": ["/api/v1/runs/ant-ppo/series?signal=policy.ratio.max"],
            "events": "/api/v1/runs/ant-ppo/events",
            "rules_hash": "5f",
            "playbook": "/playbook/ratio_explosion",
        },
        "acknowledged": None,
        "silenced": None,
        "coverage": COVERAGE,
        **changes,
    }


def explained(**changes: Any) -> Document:
    """GET anomalies/{id}: an anomaly with what began it."""
    found = anomaly(**changes)
    layer = {"rank": 0, "update": 116, "step": 3, "what": "gradient", "layer": "actor.2.weight", "layers": ["actor.2.weight"]}
    detail = {
        "sentence": "The gradient of actor.2.weight deviated first: 41.2 at update 116, step 3 (0.21 was usual).",
        "updates": {"first": 54, "last": 130, "before": 63, "since": 14},
        "first_signal": {
            "signal": "grad.norm.mean",
            "subject": "",
            "update": 116,
            "value": "NaN",
            "usual": 0.4,
            "score": None,
        },
        "first_signal_reason": "",
        "first_layer": {**layer, "total": 12, "value": 41.2, "usual": 0.21, "score": 17.5},
        "first_layer_reason": "",
        "norms": [{"layer": "actor.2.weight", "what": "gradient", "update": [115, 116], "norm": [0.2, 41.2]}],
        "exemplars": [{"rank": 0, "update": 119, "names": ["ratio"], "index": ["3:17"], "rows": [[9.5]]}],
        "tables": [
            {"kind": "layers", "rank": 0, "update": 120, "href": "/api/v1/runs/ant-ppo/layers?attempt=1&rank=0&update=120"},
            {"kind": "exemplars", "rank": 0, "update": 119, "href": ""},
        ],
        "snapshot": "/api/v1/runs/ant-ppo/snapshot?around=117&attempt=1&rank=0",
    }
    return {**found, "evidence": {**found["evidence"], **detail}}


def anomalies(*items: Document, **changes: Any) -> Document:
    """GET anomalies."""
    return {"items": list(items), "next": None, "coverage": WHOLE, "detectors": SEEING, **changes}


def command(**changes: Any) -> Document:
    """One command."""
    return {
        "id": "c1",
        "run": "ant-ppo",
        "verb": "checkpoint",
        "args": {"tag": "night"},
        "origin": "operator",
        "reason": "before the maintenance",
        "state": "applied",
        "requested_at": "2026-01-31T12:00:00.000Z",
        "expires_at": "2026-02-01T12:00:00.000Z",
        "update_applied": 121,
        "update_ended": None,
        "ended_why": "",
        "ranks": [{"rank": 0, "state": "applied", "update": 121, "reason": "", "applied": 121, "late": 0}],
        "artifact": None,
        "sentence": "The trainer does it since update 121.",
        **changes,
    }


def escalation(**changes: Any) -> Document:
    """One escalation."""
    return {
        "id": "e1",
        "run": "ant-ppo",
        "level": "debug",
        "updates": 50,
        "origin": "operator",
        "reason": "watching the KL",
        "state": "requested",
        "requested_at": "2026-01-31T12:05:00.000Z",
        "update_applied": None,
        "update_ended": None,
        "ended_why": "",
        "expires_at": "2026-02-01T12:00:00.000Z",
        "ranks": [{"rank": 0, "state": "delivered", "update": None, "reason": "", "applied": None, "late": None}],
        "sentence": "Asked for debug for 50 updates; the trainer has not been told yet.",
        **changes,
    }


def detector(**changes: Any) -> Document:
    """One entry of the catalogue."""
    return {
        "kind": "kl_spike",
        "title": "The policy moved far in one update",
        "meaning": "Several times as far as it usually does.",
        "severity": "warning",
        "needs": [
            {
                "signal": "policy.kl.k3",
                "call": "ppo",
                "line": "mon.ppo(new_logp=..., old_logp=...)",
                "optional": False,
                "undefined": "",
            }
        ],
        "thresholds": [
            {
                "name": "k3",
                "value": 0.2,
                "default": 0.1,
                "comparison": ">",
                "unit": "nats",
                "meaning": "mean over the update",
                "signal": "policy.kl.k3",
                "severity": "warning",
            }
        ],
        "votes": [{"at": "warning", "k": 2, "n": 3, "gives": "warning"}],
        "formula": "mean((r - 1) - log r) > k3",
        "warm_up": "none",
        "fails_when": "the ratio is clipped before it is passed",
        "source": "Schulman 2020",
        "try": ["Lower the learning rate."],
        "origin": "gradwatch",
        **changes,
    }


def daemon(**changes: Any) -> Document:
    """GET daemon: ready, with room on its disk, of our version."""
    return {
        "version": __version__,
        "protocol": 1,
        "profile": "default",
        "pid": 4242,
        "started_at": "2026-01-31T12:00:00.000Z",
        "now": "2026-01-31T12:05:01.000Z",
        "ready": True,
        "trouble": [],
        "sqlite": "3.51.3",
        "data_dir": {"path": "/data/gradwatch", "free_bytes": 50_000_000_000, "size_bytes": 90_000_000_000},
        "streams": 1,
        "frames": 240,
        "rows": 118,
        "refused": {},
        "quarantines": 0,
        "commits": 60,
        "commit_failures": 0,
        "ack": "committed",
        **changes,
    }


def listed(*items: Document, **changes: Any) -> Document:
    """A list without anything but its items."""
    return {"items": list(items), "next": None, **changes}


def problem(code: str, title: str, status: int, **changes: Any) -> Document:
    """A refusal."""
    return {
        "type": f"urn:gradwatch:problem:{code}",
        "title": title,
        "status": status,
        "detail": "run: expected a run that this daemon knows, got 'ant-pp'",
        "instance": "/api/v1/runs/ant-pp",
        "code": code,
        "hint": "List the runs with `gradwatch runs`.",
        "did_you_mean": None,
        "errors": [],
        **changes,
    }
