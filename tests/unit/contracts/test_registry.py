"""Signals, control, names, errors, connection: the tables everybody reads."""

from __future__ import annotations

import json

import pytest

from gradwatch_contracts.connection import Connection, runtime_dir
from gradwatch_contracts.control import ControlState, Level, Severity, effective_level, parse_level
from gradwatch_contracts.errors import CODES, GradwatchError
from gradwatch_contracts.names import ID, RUN, USER_KEY, check_name, nearest, slug
from gradwatch_contracts.signals import COLUMNS, SIGNALS, Stage


def test_every_signal_reads_columns_that_exist_and_every_column_is_read() -> None:
    """Nothing is sent and dropped, nothing derived from what is never sent."""
    used = {name for signal in SIGNALS.values() for name in signal.columns}
    assert used == set(COLUMNS)


@pytest.mark.parametrize("name", sorted(SIGNALS))
def test_signal_name_starts_with_a_stage(name: str) -> None:
    """stage.subject.stat; the bare `user` is the family of the trainer's own scalars."""
    assert SIGNALS[name].stage in Stage
    assert SIGNALS[name].estimator
    assert SIGNALS[name].sign in {"signed", "nonnegative"}


def test_stages_are_in_causal_order() -> None:
    """The order decides which finding is the root."""
    order = [Stage.OBS, Stage.REWARD, Stage.VALUE, Stage.ADV, Stage.POLICY, Stage.LOSS, Stage.GRAD, Stage.PARAM]
    assert [stage.order for stage in order] == sorted(stage.order for stage in order)
    assert Stage.OBS.order == 0


@pytest.mark.parametrize(
    ("base", "pin", "active", "expected"),
    [
        (Level.NORMAL, None, [], Level.NORMAL),
        (Level.NORMAL, None, [Level.DEBUG, Level.MINIMAL], Level.DEBUG),
        (Level.NORMAL, None, [Level.MINIMAL], Level.NORMAL),
        (Level.NORMAL, Level.OFF, [Level.DEBUG], Level.OFF),
        (Level.MINIMAL, Level.DEBUG, [], Level.DEBUG),
    ],
)
def test_effective_level_is_pin_or_highest(base: Level, pin: Level | None, active: list[Level], expected: Level) -> None:
    """Pin up or down wins; escalations only raise."""
    assert effective_level(base, pin, active) is expected


@pytest.mark.parametrize("value", ["debug", "DEBUG", 3, Level.DEBUG])
def test_level_parses_from_name_or_number(value: object) -> None:
    """Case does not matter."""
    assert parse_level(value) is Level.DEBUG


@pytest.mark.parametrize(
    ("value", "words"), [("debgu", "did you mean debug"), (4, "got 4"), (True, "got True"), (None, "None")]
)
def test_level_that_is_none_names_the_nearest(value: object, words: str) -> None:
    """A typing mistake gets the word that was meant."""
    with pytest.raises(GradwatchError, match=words):
        parse_level(value)


@pytest.mark.parametrize("value", ["off", "OFF", 0, "of", -1])
def test_level_below_the_least_is_refused_and_not_offered(value: object) -> None:
    """What would be refused is not in the list of what to give instead."""
    with pytest.raises(GradwatchError) as refused:
        parse_level(value, least=Level.MINIMAL)
    assert refused.value.expected == "minimal, normal or debug"
    assert "mean off" not in refused.value.got
    assert parse_level("minimal", least=Level.MINIMAL) is Level.MINIMAL


def test_severities_are_ordered() -> None:
    """For comparing."""
    assert [severity.rank for severity in (Severity.INFO, Severity.WARNING, Severity.CRITICAL)] == [0, 1, 2]


def test_open_states_are_those_that_may_still_change() -> None:
    """Closed states are final."""
    assert {state for state in ControlState if state.open} == {
        ControlState.REQUESTED,
        ControlState.DELIVERED,
        ControlState.APPLIED,
    }


@pytest.mark.parametrize("bad", ["", "Ant", "-ant", "a" * 65, "a/b", "a b", None, 3])
def test_run_key_outside_the_pattern_is_refused(bad: object) -> None:
    """It is a path segment, a file name and a label."""
    with pytest.raises(GradwatchError, match=r"run: expected .* got"):
        check_name(bad, RUN, "run")


@pytest.mark.parametrize("text", ["Ant PPO!", "", "---", "ünïcode", "a" * 300, "train.py"])
def test_slug_of_any_text_is_a_run_key(text: str) -> None:
    """A script name becomes a valid run."""
    assert RUN.fullmatch(slug(text))


def test_user_key_takes_summary_writer_tags_and_id_does_not() -> None:
    """`charts/episodic_return` is what people use."""
    assert check_name("charts/episodic_return", USER_KEY, "key")
    with pytest.raises(GradwatchError):
        check_name("charts/x", ID, "id")


def test_nearest_finds_a_close_word_only() -> None:
    """A wild guess would mislead."""
    assert nearest("entrpy", ["entropy", "kl"]) == "entropy"
    assert nearest("zzz", ["entropy", "kl"]) is None


def test_error_says_where_expected_got_and_next_step() -> None:
    """The one sentence a user reads."""
    error = GradwatchError(
        "port-taken", where="http", expected="127.0.0.1:9470 to be free", got="in use", next_step="Use --http."
    )
    assert str(error) == "The address is already in use. (http: expected 127.0.0.1:9470 to be free, got in use) Use --http."


def test_error_without_facts_is_title_and_hint() -> None:
    """No empty parentheses."""
    assert str(GradwatchError("daemon-unreachable")) == "No daemon answers. Start one with `gradwatch serve`."


@pytest.mark.parametrize("slug_", sorted(CODES))
def test_code_has_sentence_hint_status_and_exit(slug_: str) -> None:
    """One table for four surfaces."""
    code = CODES[slug_]
    assert code.title.endswith(".")
    assert code.hint.endswith(".")
    assert 400 <= code.http < 600
    assert code.exit in {1, 2, 3, 4, 5}


def test_connection_round_trips_and_skips_unknown_keys() -> None:
    """A newer daemon may write more."""
    connection = Connection("ipc:///run/x", "http://127.0.0.1:9470", "s", "t", 42)
    text = json.dumps({**json.loads(connection.to_json()), "later": 1})
    assert Connection.from_json(text) == connection


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ingest": 1}', "null"])
def test_connection_that_is_no_document_is_refused(text: str) -> None:
    """A torn or foreign file says what to do."""
    with pytest.raises(GradwatchError, match=r"connection\.json"):
        Connection.from_json(text)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"GRADWATCH_RUNTIME_DIR": "/x", "XDG_RUNTIME_DIR": "/run/user/1"}, "/x"),
        ({"XDG_RUNTIME_DIR": "/run/user/1/"}, "/run/user/1/gradwatch"),
        ({}, "/tmp/gradwatch-7"),
        ({"GRADWATCH_RUNTIME_DIR": ""}, "/tmp/gradwatch-7"),
    ],
)
def test_runtime_dir_prefers_ours_then_xdg_then_tmp(env: dict[str, str], expected: str) -> None:
    """Agent and daemon must agree on it."""
    assert runtime_dir(env, 7) == expected
