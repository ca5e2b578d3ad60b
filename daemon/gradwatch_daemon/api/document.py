"""/openapi.json: what FastAPI writes, corrected where our errors and our door differ from its own."""

from typing import Any

from fastapi import FastAPI

from gradwatch_contracts.errors import CODES
from gradwatch_daemon.api.auth import OPEN_PATHS
from gradwatch_daemon.api.examples import example_of
from gradwatch_daemon.api.playbook import is_playbook
from gradwatch_daemon.api.problem_models import Problem
from gradwatch_daemon.api.problems import TYPE_PREFIX, ProblemAnswer

_ALWAYS = ("unauthenticated", "forbidden", "host-not-allowed", "invalid-parameter", "internal")
_CHANGES = ("origin-not-allowed", "rate-limited", "body-too-large")
"""Of everything that is not a GET."""
_IN_RUN = ("run-not-found",)
_OWN: dict[str, tuple[str, ...]] = {
    "get_series": ("signal-not-found",),
    "get_chart": ("signal-not-found",),
    "list_anomalies": ("run-not-found",),
    "get_anomaly": ("anomaly-not-found",),
    "change_anomaly": ("anomaly-not-found", "invalid-body", "overloaded"),
    "create_silence": ("invalid-body", "idempotency-mismatch", "too-many-silences", "overloaded"),
    "get_silence": ("silence-not-found",),
    "test_notify": ("invalid-body", "channel-not-found", "overloaded"),
    "end_silence": ("silence-not-found", "overloaded"),
    "get_escalation": ("escalation-not-found",),
    "cancel_escalation": ("escalation-not-found", "run-not-live", "overloaded"),
    "create_escalation": (
        "invalid-body",
        "anomaly-not-found",
        "budget-spent",
        "run-not-live",
        "idempotency-mismatch",
        "too-many-escalations",
        "overloaded",
    ),
    "get_artifact": ("command-not-found", "artifact-not-found", "artifact-gone"),
    "get_command": ("command-not-found",),
    "cancel_command": ("command-not-found", "overloaded"),
    "change_run": ("invalid-body", "run-not-live", "level-changed", "overloaded"),
    "calm_run": ("overloaded",),
    "create_command": (
        "invalid-body",
        "run-not-live",
        "rank-not-live",
        "unsupported-by-run",
        "idempotency-mismatch",
        "command-under-way",
        "overloaded",
    ),
    "create_token": ("invalid-body",),
    "revoke_token": ("token-not-found",),
    "replay": (
        "run-not-found",
        "invalid-body",
        "body-too-large",
        "config-invalid",
        "replay-too-large",
        "recording-unreadable",
        "overloaded",
        "not-ready",
    ),
    "export_run": ("recording-unreadable", "export-too-large", "export-failed", "overloaded", "not-ready"),
    "export_anomaly": (
        "anomaly-not-found",
        "run-not-found",
        "recording-unreadable",
        "export-too-large",
        "export-failed",
        "overloaded",
        "not-ready",
    ),
    "list_keys": ("ingest-local",),
    "create_key": ("ingest-local", "invalid-body"),
    "revoke_key": ("ingest-local", "key-not-found"),
    "stream": ("overloaded", "not-ready"),
    "readyz": ("not-ready",),
    "get_playbook": ("route-not-found",),
}


def install(app: FastAPI) -> None:
    """Make `app.openapi` answer the corrected document."""
    generate = app.openapi

    def corrected() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = correct(generate())
        return app.openapi_schema

    app.openapi = corrected  # type: ignore[method-assign]  # FastAPI's documented way to change it


def correct(document: dict[str, Any]) -> dict[str, Any]:
    """Declare bearer authentication and, for every operation, each error it can answer as a problem document."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem_schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem_schema.pop("$defs", {}))
    schemas["Problem"] = problem_schema
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": "gradwatch_PORT", "description": "From POST /session"},
    }
    document["security"] = [{"bearer": []}, {"session": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            _exemplify(operation["responses"], schemas)
            if path in OPEN_PATHS or is_playbook("GET", path):
                operation["security"] = []
            operation["responses"].update(_problems(_codes(path, method, operation["operationId"])))
    return document


def _exemplify(responses: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give every JSON answer an example."""
    for response in responses.values():
        media = response.get("content", {}).get("application/json", {})
        if "schema" in media:
            media.setdefault("example", example_of(media["schema"], schemas))


def _codes(path: str, method: str, operation: str) -> list[str]:
    always = ("invalid-parameter", "internal") if path in OPEN_PATHS else _ALWAYS
    return [*always, *(() if method == "get" else _CHANGES), *(_IN_RUN if "{run}" in path else ()), *_OWN.get(operation, ())]


def _problems(slugs: list[str]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for slug in slugs:
        code = CODES[slug]
        entry = responses.setdefault(
            str(code.http),
            {
                "description": "",
                "content": {ProblemAnswer.media_type: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        entry["description"] = f"{entry['description']} `{slug}`: {code.title}".strip()
        entry["content"][ProblemAnswer.media_type]["examples"][slug] = {"value": _example(slug)}
    return responses


def _example(slug: str) -> dict[str, Any]:
    code = CODES[slug]
    return {
        "type": TYPE_PREFIX + slug,
        "title": code.title,
        "status": code.http,
        "detail": code.title,
        "instance": "/api/v1/runs",
        "code": slug,
        "hint": code.hint,
        "did_you_mean": None,
        "errors": [],
    }
