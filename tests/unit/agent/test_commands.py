"""Commands of one process: each id once, never before its update, never after its deadline, and taken back at any time."""

from __future__ import annotations

from gradwatch_agent.commands import INBOX_MAX, SEEN_MAX, Commands, Verbs
from gradwatch_contracts import limits
from gradwatch_contracts.control import CANCEL
from gradwatch_contracts.messages import Command

NOW_NS = 1_700_000_000_000_000_000


def verbs(*names: str) -> Verbs:
    """Verbs that are done at once."""
    made = Verbs()
    for name in names:
        made.add(name, lambda command, update: "done")
    return made


def ids(due: tuple[Command, ...]) -> list[str]:
    """Of commands."""
    return [command.id for command in due]


def test_command_of_an_unknown_verb_is_refused_by_name() -> None:
    """The daemon checks it too; a HELLO may have crossed it."""
    commands = Commands()
    commands.receive(Command("c1", "dance"))
    due = commands.due(3, NOW_NS, verbs("stop"))

    assert due.begin == ()
    assert due.refused == (("c1", "this trainer has no dance"),)
    assert commands.due(4, NOW_NS, verbs("dance")).begin == ()


def test_command_after_its_deadline_is_refused_and_before_it_is_not() -> None:
    """At the deadline it is too late; 0 is no deadline."""
    commands = Commands()
    for id_, expires in (("late", NOW_NS), ("early", NOW_NS + 1), ("never", 0)):
        commands.receive(Command(id_, "stop", expires_unix_ns=expires))
    due = commands.due(0, NOW_NS, verbs("stop"))

    assert ids(due.begin) == ["early", "never"]
    assert [id_ for id_, why in due.refused] == ["late"]
    assert "expired" in due.refused[0][1]


def test_command_is_done_once_however_often_it_is_said() -> None:
    """A daemon says it again on every connection until it is answered."""
    commands, known = Commands(), verbs("stop")
    commands.receive(Command("c1", "stop"))
    commands.receive(Command("c1", "stop"))
    assert ids(commands.due(0, NOW_NS, known).begin) == ["c1"]
    commands.receive(Command("c1", "stop"))
    assert commands.due(1, NOW_NS, known).begin == ()
    assert commands.end("c1")
    commands.receive(Command("c1", "stop"))
    assert commands.due(2, NOW_NS, known).begin == ()
    assert not commands.end("c1")


def test_command_waits_for_its_update_and_keeps_its_deadline_meanwhile() -> None:
    """All ranks do it at the same one."""
    commands, known = Commands(), verbs("dump")
    commands.receive(Command("c1", "dump", not_before_update=5))
    commands.receive(Command("c2", "dump", not_before_update=7, expires_unix_ns=NOW_NS + 10))
    assert ids(commands.due(4, NOW_NS, known).begin) == []
    assert ids(commands.due(5, NOW_NS, known).begin) == ["c1"]
    assert commands.due(6, NOW_NS + 10, known).refused[0][0] == "c2"


def test_command_taken_back_is_never_begun_or_is_ended_once() -> None:
    """Before it began, while it goes on, and when the cancellation comes first."""
    commands, known = Commands(), verbs("profile")
    commands.receive(Command("waits", "profile", not_before_update=9))
    commands.receive(Command("runs", "profile"))
    assert ids(commands.due(0, NOW_NS, known).begin) == ["runs"]
    for id_ in ("waits", "runs", "unknown"):
        commands.receive(Command(id_, CANCEL))
    commands.receive(Command("unknown", "profile"))
    due = commands.due(9, NOW_NS, known)
    assert ids(due.stop) == ["runs"]
    assert due.begin == ()
    commands.receive(Command("runs", CANCEL))
    assert commands.due(10, NOW_NS, known).stop == ()


def test_commands_of_a_daemon_gone_wild_are_bounded() -> None:
    """Of too many at once those that do not fit the inbox are dropped unanswered, so an honest daemon says them again, and the
    others refused; ids are forgotten oldest first."""
    commands, known = Commands(), verbs("x")
    for number in range(2 * INBOX_MAX):
        commands.receive(Command(f"c{number}", "x"))
    due = commands.due(0, NOW_NS, known)
    assert ids(due.begin) == [f"c{number}" for number in range(limits.COMMANDS_OPEN_MAX)]
    assert [id_ for id_, _ in due.refused] == [f"c{number}" for number in range(limits.COMMANDS_OPEN_MAX, INBOX_MAX)]
    for command in due.begin:
        commands.end(command.id)
    for number in range(SEEN_MAX + 10):
        commands.receive(Command(f"d{number}", "x"))
        commands.due(1, NOW_NS, known)
    assert len(commands._seen) == SEEN_MAX


def test_commands_for_a_far_update_do_not_pile_up() -> None:
    """A daemon gone wild asks at every update for what is never due: as many wait as may be open, all others are answered."""
    commands, known, refused = Commands(), verbs("x"), 0
    for update in range(50):
        for number in range(INBOX_MAX):
            commands.receive(Command(f"{update}.{number}", "x", not_before_update=2**62))
        due = commands.due(update, NOW_NS, known)
        refused += len(due.refused)
        assert due.begin == ()
    assert len(commands._waiting) == limits.COMMANDS_OPEN_MAX
    assert refused == 50 * INBOX_MAX - limits.COMMANDS_OPEN_MAX
    commands.receive(Command("0.0", CANCEL))
    commands.receive(Command("late", "x"))
    assert ids(commands.due(50, NOW_NS, known).begin) == ["late"]


def test_verb_that_is_given_anew_is_no_news_to_the_daemon() -> None:
    """HELLO names it already."""
    known = Verbs()
    assert known.add("b", lambda command, update: "one")
    assert not known.add("b", lambda command, update: "two")
    assert known.add("a", lambda command, update: None)
    assert known.names == ("a", "b")
    assert known.begin(Command("c", "b"), 0) == "two"
