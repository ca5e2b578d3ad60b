"""An example of every answer in /openapi.json, made from its schema: one that is written by hand goes stale.

A value is the field's own example where the model gives one, else the usual one of its name, else what its type allows.
"""

from collections.abc import Mapping
from typing import Any

USUAL: dict[str, Any] = {
    "agent_version": "0.1.0",
    "against": "live",
    "armed": 5,
    "attempt": 1,
    "blind": 2,
    "call": "ppo",
    "count": 3,
    "ended_why": "",
    "env_steps": 243712,
    "estimator": "mean((r - 1) - log r)",
    "events": "/api/v1/runs/ant-ppo/events",
    "firing": 1,
    "formula": "policy.kl.k3 > 0.1",
    "from": "127.0.0.1",
    "group": "ants",
    "id": "5f0c1d2e3a4b5c6d",
    "kind": "kl_spike",
    "launch_id": "launch-7",
    "limit": 0.1,
    "line": "mon.ppo(new_logp=..., old_logp=..., clip=0.2)",
    "link": "/api/v1/anomalies/5f0c1d2e3a4b5c6d",
    "lost": 2,
    "method": "POST",
    "name": "grafana",
    "next": None,
    "path": "/api/v1/runs/ant-ppo/escalations",
    "pid": 4242,
    "profile": "default",
    "public": "9c" * 32,
    "rank": 0,
    "reason": "watching the KL",
    "received": 998,
    "rules_hash": "5f0c1d2e3a4b5c6d",
    "run": "ant-ppo",
    "sentence": "KL 0.14 (limit 0.1) for 3 updates.",
    "series": "/api/v1/runs/ant-ppo/series?signal=policy.kl.k3&from=68&to=120&attempt=1&rank=0",
    "session": "3f2a9c54c0de4d8e9f00a1b2c3d4e5f6",
    "sign": "positive",
    "signal": "policy.kl.k3",
    "source": "update",
    "sqlite": "3.51.3",
    "stage": "policy",
    "state": "firing",
    "status": "measured",
    "subject": "",
    "text": "ValueError: the parameter logits has invalid values",
    "try": "Stop the epochs of an update early (target_kl).",
    "unit": "nats",
    "update": 118,
    "update_first": 0,
    "update_fired": 119,
    "update_last": 120,
    "update_onset": 118,
    "update_resolved": None,
    "updates": 50,
    "updates_total": 500,
    "value": 0.14,
    "version": "0.1.0",
    "window": "whole update",
    "world": 1,
}
_REF = "#/components/schemas/"


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "") -> Any:
    """One value that `schema` allows; `schemas` are those it may refer to, `name` the field it is of."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].removeprefix(_REF)], schemas, name)
    given = [schema[word] for word in ("const", "default") if word in schema]
    given = [*schema.get("examples", ()), *given, *(word for word in schema.get("enum", ()) if word == USUAL.get(name))]
    if given or "enum" in schema:
        return [*given, *schema.get("enum", ())][0]
    if "properties" in schema:
        return {field: example_of(part, schemas, field) for field, part in schema["properties"].items()}
    if "anyOf" in schema:
        nothing = name in USUAL and USUAL[name] is None and {"type": "null"} in schema["anyOf"]
        return None if nothing else example_of(schema["anyOf"][0], schemas, name)
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas, name)]
    return _scalar(schema, name)


def _scalar(schema: Mapping[str, Any], name: str) -> Any:
    """The usual value of a field's name where it is of the type, else the plainest of that type."""
    usual, least = USUAL.get(name), schema.get("minimum", 1)
    plainest: dict[str, Any] = {"integer": int(least), "number": 0.5, "boolean": False, "object": {}, "null": None}
    plain = plainest.get(schema.get("type", ""), name.replace("_", " "))
    return usual if type(usual) is type(plain) else plain
