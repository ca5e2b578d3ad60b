"""Who may do what: tokens as hashes, scopes, expiry, sessions, the allowance for changes. Refusals first."""

from __future__ import annotations

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api.access import (
    CODES_MAX,
    OWNER,
    SESSION_S,
    SESSIONS_MAX,
    TOKENS_MAX,
    Allowance,
    Principal,
    Scope,
    Sessions,
    Token,
    TokenBook,
)

S = 1_000_000_000


@pytest.mark.parametrize("name", ["", "a b", "../x", OWNER, "taken", "x" * 65])
def test_token_with_a_bad_or_taken_name_is_refused_and_nothing_kept(name: str) -> None:
    """A name is what the audit shows, so it is plain and unique."""
    saved: list[int] = []
    book = TokenBook("o", [Token("1", "taken", Scope.READ, "d", 0)], lambda tokens: saved.append(len(tokens)))

    with pytest.raises(GradwatchError, match="bad value"):
        book.add(name, Scope.READ, None, 0)
    assert (len(book.tokens), saved) == (1, [])


def test_token_beyond_the_limit_is_refused_naming_the_way_out() -> None:
    """Each costs a comparison per request."""
    book = TokenBook("o", [Token(str(i), f"t{i}", Scope.READ, "d", 0) for i in range(TOKENS_MAX)])

    with pytest.raises(GradwatchError, match="token revoke"):
        book.add("one-more", Scope.READ, None, 0)


def test_token_is_kept_as_a_hash_only() -> None:
    """Whoever reads the file cannot ask with it."""
    saved: list[Token] = []
    book = TokenBook("o", (), saved.extend)
    token, secret = book.add("grafana", Scope.READ, 60.0, 5 * S)

    assert saved == [token]
    assert secret not in repr(token)
    assert len(token.digest) == 64
    assert (token.created_ns, token.expires_ns) == (5 * S, 65 * S)
    assert book.find(token.digest, 5 * S) is None


def test_token_holds_until_the_moment_it_expires() -> None:
    """At its expiry it is over, one ns before it is not."""
    book = TokenBook("o")
    token, secret = book.add("night", Scope.OPERATE, 60.0, 0)

    assert book.find(secret, 60 * S - 1) == Principal("night", token.id, Scope.OPERATE)
    assert book.find(secret, 60 * S) is None


def test_token_that_could_not_be_saved_does_not_hold() -> None:
    """A token that is gone after a restart would be a promise broken."""

    def fail(tokens: object) -> None:
        raise OSError("disk full")

    book = TokenBook("o", (), fail)
    with pytest.raises(OSError, match="disk full"):
        book.add("a", Scope.READ, None, 0)
    assert book.tokens == ()


def test_token_revoked_is_refused_with_every_session_it_opened() -> None:
    """Taking a token back takes back the browsers too."""
    book = TokenBook("o")
    _, secret = book.add("phone", Scope.OPERATE, None, 0)
    principal = book.find(secret, 0)
    assert principal is not None
    sessions = Sessions(book)
    cookie = sessions.open(principal, 0)
    assert sessions.find(cookie, 1) == principal

    book.revoke("phone")

    assert book.find(secret, 1) is None
    assert sessions.find(cookie, 1) is None
    with pytest.raises(GradwatchError, match="No token has this name"):
        book.revoke("phone")


def test_session_ends_with_its_time_its_token_or_by_being_closed() -> None:
    """12 hours, the token's own expiry, or signing out: whatever is first."""
    book = TokenBook("o")
    sessions = Sessions(book)
    owner = Principal(OWNER, OWNER, Scope.ADMIN)
    cookie = sessions.open(owner, 0)
    assert sessions.find(cookie, SESSION_S * S - 1) == owner
    assert sessions.find(cookie, SESSION_S * S) is None

    _, secret = book.add("hour", Scope.READ, 3600.0, 0)
    hour = book.find(secret, 0)
    assert hour is not None
    short = sessions.open(hour, 0)
    assert sessions.find(short, 3600 * S) is None

    closed = sessions.open(owner, 0)
    sessions.close(closed)
    assert sessions.find(closed, 0) is None
    assert sessions.find("", 0) is None


def test_sessions_beyond_the_limit_end_the_oldest_of_the_same_token_only() -> None:
    """A script that signs in at every request does not fill the memory, nor sign anybody else out."""
    book = TokenBook("o")
    sessions = Sessions(book)
    _, secret = book.add("phone", Scope.READ, None, 0)
    phone = book.find(secret, 0)
    assert phone is not None
    other = sessions.open(phone, 0)
    owner = Principal(OWNER, OWNER, Scope.ADMIN)
    cookies = [sessions.open(owner, 0) for _ in range(SESSIONS_MAX + 1)]

    assert sessions.find(cookies[0], 1) is None
    assert sessions.find(cookies[1], 1) == owner
    assert sessions.find(cookies[-1], 1) == owner
    assert sessions.find(other, 1) == phone


def test_session_and_code_say_that_they_end_with_their_token() -> None:
    """What is shown, and kept by the browser, is never longer than what the token allows."""
    book = TokenBook("o")
    sessions = Sessions(book)
    _, secret = book.add("minute", Scope.READ, 60.0, 0)
    minute = book.find(secret, 0)
    assert minute is not None

    assert sessions.until(sessions.open(minute, 0)) == 60 * S
    assert sessions.invite(minute, 0)[1] == 60 * S
    assert sessions.until(sessions.open(book.owner, 0)) == SESSION_S * S


def test_allowance_lets_a_burst_pass_then_one_at_a_time_for_each_apart() -> None:
    """One script that runs wild does not take the allowance of a person."""
    allowance = Allowance(burst=3, per_s=2.0)

    assert [allowance.take("script", 10.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert allowance.take("person", 10.0) == 0.0
    assert allowance.take("script", 10.25) == pytest.approx(0.25)
    assert allowance.take("script", 10.5) == 0.0
    assert [allowance.take("script", 1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_code_that_is_old_used_or_of_a_revoked_token_is_nobodys() -> None:
    """A printed address must be worth nothing later."""
    book = TokenBook("owner-secret")
    _, secret = book.add("viewer", Scope.READ, None, 0)
    viewer = book.find(secret, 0)
    assert viewer is not None
    sessions = Sessions(book)
    old, until_ns = sessions.invite(book.owner, 0)
    used, _ = sessions.invite(book.owner, 0)
    revoked, _ = sessions.invite(viewer, 0)
    book.revoke("viewer")

    assert sessions.redeem(used, until_ns - 1) == book.owner
    assert [sessions.redeem(code, until_ns - 1) for code in (used, revoked, "", "once_guess")] == [None] * 4
    assert sessions.redeem(old, until_ns) is None


def test_codes_beyond_the_most_push_out_the_oldest_of_the_same_token_only() -> None:
    """Whoever prints links in a loop fills no memory and spoils nobody's link."""
    book = TokenBook("owner-secret")
    sessions = Sessions(book)
    _, secret = book.add("phone", Scope.READ, None, 0)
    phone = book.find(secret, 0)
    assert phone is not None
    other = sessions.invite(phone, 0)[0]
    codes = [sessions.invite(book.owner, 0)[0] for _ in range(CODES_MAX + 1)]

    assert sessions.redeem(codes[0], 1) is None
    assert sessions.redeem(codes[1], 1) == book.owner
    assert sessions.redeem(other, 1) == phone
