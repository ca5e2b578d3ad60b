"""The tables [[notify]]: what each may hold, and what a person reads who mistyped one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.control import Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.config import load_config
from gradwatch_daemon.notify.target import TARGETS_MAX, Target, read_targets

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "0123456789abcdef"
HOOK: dict[str, Any] = {"kind": "webhook", "url": "https://hooks.lab/x?token=abc", "secret": SECRET}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({**HOOK, "secrets": "x"}, "the unknown key 'secrets'.*Did you mean secret?"),
        ({**HOOK, "kind": "webhok"}, "the unknown kind 'webhok'.*Did you mean webhook?"),
        ({**HOOK, "severity": "criticl"}, "Did you mean critical?"),
        ({**HOOK, "secret": "short"}, "16 bytes or more.*got 5 bytes"),
        ({"kind": "webhook", "url": "https://x"}, "secret: .*GRADWATCH_NOTIFY_SECRET"),
        ({**HOOK, "url": "ftp://x"}, "http://HOST"),
        ({**HOOK, "url": "https://user:pw@x"}, "without a user"),
        ({**HOOK, "name": "no name"}, "notify 1 .*name"),
        ({"kind": "webhook"}, "url: expected a text, got nothing"),
        ({**HOOK, "url": "https://x:99999/abc"}, "a host or port that cannot be"),
        ({**HOOK, "url": "https://x:abc/"}, "a host or port that cannot be"),
        ({**HOOK, "url": "https://[x/abc"}, "a host or port that cannot be"),
        ({**HOOK, "url": "https://x/abc d"}, "%XX for spaces"),
        ({**HOOK, "url": "https://x/abc\u00e9"}, "%XX for spaces"),
        ({**HOOK, "secret": "whsec_" + "=" * 24}, "base64 behind whsec_"),
        ({**HOOK, "secret": "whsec_abc"}, "base64 behind whsec_"),
        ({**HOOK, "secret": "whsec_AAAAAAAAAAAA"}, "16 bytes or more.*got 9 bytes"),
        ({"kind": "apprise", "url": "slack"}, "an address of Apprise"),
        ("webhook+https://x/abc", "a table, got a str"),
    ],
)
def test_target_that_is_wrong_names_table_key_and_the_nearest(table: object, said: str) -> None:
    """`config-invalid`; a secret in the address is never shown."""
    with pytest.raises(GradwatchError, match=said) as refused:
        read_targets([table], "", "file x")
    assert refused.value.code.slug == "config-invalid"
    assert "abc" not in str(refused.value)


def test_names_are_unique_and_made_where_none_is_given() -> None:
    """Two of a kind are told apart; a name taken twice is refused, and more than the bound."""
    assert [target.name for target in read_targets([HOOK, HOOK], "", "x")] == ["webhook", "webhook-2"]
    with pytest.raises(GradwatchError, match="a name of its own"):
        read_targets([{**HOOK, "name": "a"}, {**HOOK, "name": "a"}], "", "x")
    with pytest.raises(GradwatchError, match=f"at most {TARGETS_MAX}"):
        read_targets([HOOK] * (TARGETS_MAX + 1), "", "x")


def test_target_shows_neither_its_secret_nor_the_rest_of_its_address() -> None:
    """In a log line, and where HTTP lists it."""
    target = read_targets([HOOK], "", "x")[0]
    assert SECRET not in repr(target)
    assert "abc" not in repr(target)
    assert target.address == "https://hooks.lab"
    assert Target("apprise", "slack://token").address == "slack://…"


def test_configuration_takes_tables_and_one_variable(tmp_path: Path) -> None:
    """The variable replaces the tables; its webhooks are signed with GRADWATCH_NOTIFY_SECRET."""
    (tmp_path / "gradwatch.toml").write_text(
        f'[[notify]]\nname = "ops"\nkind = "webhook"\nurl = "https://hooks.lab/x"\nsecret = "{SECRET}"\nseverity = "critical"\n'
        '[[notify]]\nkind = "alertmanager"\nurl = "http://127.0.0.1:9093"\n'
    )
    env = {"HOME": str(tmp_path)}
    ops, alerts = load_config({}, env, tmp_path).notify
    assert (ops.name, ops.severity, alerts.name, alerts.kind) == ("ops", Severity.CRITICAL, "alertmanager", "alertmanager")
    shown = load_config({}, {**env, "GRADWATCH_NOTIFY_SECRET": SECRET}, tmp_path).model_dump(mode="json")
    assert shown["notify"][0] == "ops: webhook https://hooks.lab from critical"
    assert SECRET not in str(shown)
    words = {**env, "GRADWATCH_NOTIFY": "webhook+https://a/b alertmanager+http://c", "GRADWATCH_NOTIFY_SECRET": SECRET}
    hook, other = load_config({}, words, tmp_path).notify
    assert (hook.url, hook.secret, other.url, other.secret) == ("https://a/b", SECRET, "http://c", "")
    with pytest.raises(GradwatchError, match=r"KIND.URL such as"):
        load_config({}, {**env, "GRADWATCH_NOTIFY": "https://a/b"}, tmp_path)
    with pytest.raises(GradwatchError, match="Did you mean GRADWATCH_NOTIFY"):
        load_config({}, {**env, "GRADWATCH_NOTIFI": "x"}, tmp_path)
