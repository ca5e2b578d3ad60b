"""Our bugs stay ours: counted, told once, never raised into training, and fatal in our own tests."""

from __future__ import annotations

import logging

import pytest

from gradwatch_agent.guard import guarded, guarded_value, own_errors


class Subject:
    """Something of ours with bugs."""

    def __init__(self, *, reporting: bool = True) -> None:
        self.reports: list[tuple[str, str]] = []
        self._reporting = reporting

    def _on_own_error(self, place: str, text: str) -> None:
        if not self._reporting:
            raise RuntimeError("reporting fails too")
        self.reports.append((place, text))

    @guarded
    def fails(self, error: BaseException) -> None:
        """Raises what it is given."""
        raise error

    @guarded_value(-1)
    def divides(self, a: int, *, by: int) -> int:
        """An honest method, for some arguments."""
        return a // by

    @property
    @guarded_value(False)
    def flag(self) -> bool:
        """A property that fails."""
        raise KeyError("flag")


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production."""
    monkeypatch.delenv("GRADWATCH_STRICT", raising=False)


def test_guarded_method_that_fails_is_silent_to_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    """Counted each time; logged with its traceback and reported once per place."""
    subject = Subject()
    for _ in range(3):
        subject.fails(ValueError("our bug"))

    assert own_errors(subject) == {"Subject.fails": 3}
    ((place, text),) = subject.reports
    assert place == "Subject.fails"
    assert "Traceback" in text
    assert "ValueError: our bug" in text
    (record,) = [record for record in caplog.records if record.name == "gradwatch" and record.levelno == logging.ERROR]
    assert "ValueError: our bug" in record.getMessage()


def test_guarded_value_falls_back_only_on_failure() -> None:
    """Arguments and results pass through."""
    subject = Subject()

    assert (subject.divides(7, by=2), subject.divides(7, by=0), subject.flag) == (3, -1, False)
    assert own_errors(subject) == {"Subject.divides": 1, "Subject.flag": 1}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_guarded_method_lets_the_user_stop(error: BaseException) -> None:
    """Ctrl-C and exit are not our errors."""
    with pytest.raises(type(error)):
        Subject().fails(error)


def test_guard_whose_report_fails_stays_silent() -> None:
    """The report is our code too."""
    subject = Subject(reporting=False)
    subject.fails(ValueError("our bug"))

    assert own_errors(subject) == {"Subject.fails": 1}


def test_guard_under_strict_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours fails our tests."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    with pytest.raises(ValueError, match="our bug"):
        Subject().fails(ValueError("our bug"))
    with pytest.raises(ZeroDivisionError):
        Subject().divides(1, by=0)


def test_own_errors_belong_to_their_object() -> None:
    """Two monitors do not share counts."""
    first, second = Subject(), Subject()
    first.fails(ValueError("x"))

    assert own_errors(second) == {}
