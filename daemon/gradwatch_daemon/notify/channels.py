"""How each kind of channel is told: a signed webhook, Alertmanager's second API, and everything Apprise knows."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

from gradwatch_daemon.notify.payload import title, write
from gradwatch_daemon.notify.post import Answer, post
from gradwatch_daemon.notify.target import signing_key

if TYPE_CHECKING:
    from gradwatch_daemon.notify.target import Target

ALERT_LASTS_S = 240
"""Until when an alert fires that we do not send again: four times the pause between two, as Prometheus does."""


TEST_LASTS_S = 10


def send(target: Target, id_: str, body: dict[str, Any], now_s: float) -> Answer:
    """Send one notification; `id_` is that of its delivery, `now_s` unix time."""
    if target.kind == "webhook":
        return send_webhook(target, id_, write(body).encode(), int(now_s))
    if target.kind == "alertmanager":
        return send_alerts(target, [body], now_s)
    return send_apprise(target, body)


def send_webhook(target: Target, id_: str, body: bytes, now_s: int) -> Answer:
    """POST, signed after the specification Standard Webhooks, so that libraries verify it: `v1,` and the base64 of HMAC-SHA256
    over `id.timestamp.body`. A repeat has the same id; whoever receives it twice can tell."""
    headers = {"webhook-id": id_, "webhook-timestamp": str(now_s), "webhook-signature": sign(target.secret, id_, now_s, body)}
    return post(target.url, body, headers)


def sign(secret: str, id_: str, now_s: int, body: bytes) -> str:
    """The signature header, by the key that the secret stands for."""
    mac = hmac.new(signing_key(secret), f"{id_}.{now_s}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def send_alerts(target: Target, bodies: list[dict[str, Any]], now_s: float) -> Answer:
    """POST to /api/v2/alerts: the same labels are the same alert, one whose end has passed is resolved."""
    alerts = [alert(body, now_s) for body in bodies]
    return post(f"{target.url.rstrip('/')}/api/v2/alerts", json.dumps(alerts).encode(), {})


def alert(body: dict[str, Any], now_s: float) -> dict[str, Any]:
    """One alert of Alertmanager. `id` is among its labels: two anomalies of one kind are two alerts."""
    lasts_s = TEST_LASTS_S if body["about"] == "test" else ALERT_LASTS_S
    end_s = now_s if body["event"] == "resolved" else now_s + lasts_s
    labels = {"alertname": f"Gradwatch_{body['kind']}", **{key: str(body[key]) for key in ("run", "kind", "subject", "id")}}
    return {
        "labels": {key: value for key, value in {**labels, "severity": body["severity"]}.items() if value},
        "annotations": {"summary": title({**body, "event": "firing"}), "description": body["sentence"]},
        "endsAt": (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=end_s)).isoformat(),
        "generatorURL": body["link"],
    }


def send_apprise(target: Target, body: dict[str, Any]) -> Answer:
    """Whatever Apprise makes of the address. It says whether, not why."""
    import apprise

    sort = {"critical": "failure", "warning": "warning"}.get(body["severity"], "info")
    sort = "success" if body["event"] == "resolved" else sort
    told = apprise.Apprise()
    if not told.add(target.url):
        return Answer(False, False, "Apprise does not know this kind of address, or something in it is missing")
    text = "\n".join([body["sentence"], *(f"Try: {step}" for step in body.get("try", [])[:2]), body["link"]])
    sent = cast("bool", told.notify(title=f"gradwatch: {title(body)}", body=text, notify_type=sort))
    return Answer(sent, not sent, "Apprise delivered it" if sent else "Apprise could not deliver it")
