"""Which notifications the pipeline makes: once, in the transaction of what they are about, muted, and over restarts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.control import Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.notify.notifier import Notifier
from gradwatch_daemon.notify.target import Target
from gradwatch_daemon.pipeline import notifying
from gradwatch_daemon.pipeline.mailbox import REQUESTS_MAX
from gradwatch_daemon.records.attention import CreateSilence, EndSilence
from gradwatch_daemon.records.commands import Calm
from gradwatch_daemon.records.notices import Delivery, Outcome
from harness.rows import hello
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gradwatch_daemon.records import Commit

NAN = float("nan")
BROKEN = {"loss.total": (16.0, NAN, NAN), "loss.total.nonfinite": (16.0,), "loss.total.nonfinite_mb": (0.0,)}
HOUR = 3600 * 10**9


class Recorder(Notifier):
    """Takes what is handed over and delivers nothing: its threads are never started."""

    def __init__(self) -> None:
        ops = Target("webhook", "http://a", "ops", "s" * 16)
        pager = Target("webhook", "http://b", "pager", "s" * 16, Severity.CRITICAL)
        super().__init__([ops, pager], lambda outcome: None)
        self.url = "http://here"
        self.handed: list[Delivery] = []
        self.dropped: list[str] = []

    def put(self, delivery: Delivery) -> None:
        """Keep it."""
        self.handed.append(delivery)

    def drop(self, delivery: Delivery) -> None:
        """Note it."""
        self.dropped.append(delivery.id)

    def told(self, channel: str = "ops") -> list[tuple[str, str, str]]:
        """Event, kind and state of what one channel was handed."""
        return [
            (d.event, d.body.partition('"kind":"')[2].partition('"')[0], d.state) for d in self.handed if d.channel == channel
        ]


class NotifiedWorld(World):
    """A world whose pipeline tells two channels: ops of warnings, pager of what is critical."""

    def open(self) -> None:
        self.notifier = self.recorder = Recorder()
        super().open()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[NotifiedWorld]:
    """A run of 30 healthy updates."""
    world = NotifiedWorld(tmp_path)
    world.greet()
    world.tick(world.rows.samples(30))
    yield world
    world.close()


def log(world: World, **wanted: Any) -> list[Delivery]:
    """The stored log, oldest first."""
    found = world.reader.deliveries()[::-1]
    return [d for d in found if all(getattr(d, key) == value for key, value in wanted.items())]


def settle(world: World, delivery: Delivery, state: str = "delivered", attempts: int = 1) -> None:
    """As the channel's thread would report."""
    world.ask(Outcome(delivery.id, state, attempts, "said so", 77))


def test_outcome_of_an_unknown_delivery_changes_nothing(world: NotifiedWorld) -> None:
    """A repeat of the last word, after a restart."""
    answer = world.pipeline.mailbox.submit(Outcome("nope", "delivered", 1, "", 0))
    world.tick()
    assert answer.exception(0) is not None
    assert log(world) == []


def test_outcome_is_taken_though_the_mailbox_is_full(world: NotifiedWorld) -> None:
    """Clients that ask too much are refused; what a channel did happens once, and nobody would say it again."""
    for _ in range(REQUESTS_MAX):
        world.pipeline.mailbox.submit(Outcome("other", "delivered", 1, "", 0))
    refused = world.pipeline.mailbox.submit(Calm("ant-ppo"))
    answer = world.pipeline.mailbox.submit(Outcome("nope", "delivered", 1, "", 0))
    world.tick()
    codes = [found.exception(0) for found in (refused, answer)]
    assert [error.code.slug for error in codes if isinstance(error, GradwatchError)] == ["overloaded", "internal"]


def test_anomaly_is_told_once_when_it_fires_and_once_when_it_resolves(world: NotifiedWorld) -> None:
    """To each channel whose severity it has; committed with the anomaly, before it is handed over."""
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.tick(world.rows.samples(3, changed=BROKEN))
    assert world.recorder.told("ops") == [("firing", "nonfinite", "pending")]
    assert world.recorder.told("pager") == [("firing", "nonfinite", "pending")]
    assert [d.state for d in log(world)] == ["pending", "pending"]
    for made in log(world):
        settle(world, made)
    assert [(d.state, d.attempts, d.answer, d.changed_ns) for d in log(world)] == [("delivered", 1, "said so", 77)] * 2
    world.tick(world.rows.samples(120))
    assert world.recorder.told("ops")[-1] == ("resolved", "nonfinite", "pending")
    assert len(world.recorder.told("ops")) == 2


def test_what_is_less_severe_than_a_channel_wants_is_not_told_there(world: NotifiedWorld) -> None:
    """A run that was lost is critical for all; a warning only for ops."""
    world.tick(world.rows.samples(40, changed={"policy.kl.k3": (1024.0, 0.06, 0.02)}))
    pager = {severity for d in log(world, channel="pager") for severity in [d.severity]}
    assert pager <= {"critical"}
    assert {d.severity for d in log(world, channel="ops")} & {"warning"}


def test_silenced_anomaly_is_recorded_as_muted_and_told_when_the_silence_ends(world: NotifiedWorld) -> None:
    """The log names the silence; what resolves under it was never told, so nobody is told that it is over."""
    world.ask(CreateSilence("s1", "ant-ppo", "nonfinite", None, "known", "owner", HOUR))
    world.tick(world.rows.samples(1, changed=BROKEN))
    assert world.recorder.told() == [("firing", "nonfinite", "muted")]
    assert [(d.state, d.silence, d.answer) for d in log(world, channel="ops")] == [("muted", "s1", "silenced by s1")]
    world.ask(EndSilence("s1"))
    assert world.recorder.told()[1:] == [("firing", "nonfinite", "pending")]
    world.tick(world.rows.samples(120))
    assert world.recorder.told()[2:] == [("resolved", "nonfinite", "pending")]
    world.ask(CreateSilence("s2", None, None, None, "night", "owner", HOUR))
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.tick(world.rows.samples(120))
    assert world.recorder.told()[3:] == [("firing", "nonfinite", "muted")]


def test_anomaly_that_was_told_and_then_silenced_is_resolved_all_the_same(world: NotifiedWorld) -> None:
    """Whoever was called must hear that it is over."""
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.ask(CreateSilence("s1", None, None, None, "night", "owner", HOUR))
    world.tick(world.rows.samples(120))
    told = [(event, state) for event, _, state in world.recorder.told()]
    assert told == [("firing", "pending"), ("firing", "muted"), ("resolved", "pending")]


def test_restart_goes_on_with_what_is_pending_and_tells_nothing_twice(world: NotifiedWorld) -> None:
    """Pending ones are handed over again, delivered ones are remembered, and the end is still told."""
    world.tick(world.rows.samples(1, changed=BROKEN))
    ops, pager = log(world, channel="ops")[0], log(world, channel="pager")[0]
    settle(world, pager)
    world.restart()
    assert [(d.id, d.state) for d in world.recorder.handed] == [(ops.id, "pending"), (pager.id, "delivered")]
    world.greet()
    world.tick(world.rows.samples(2, changed=BROKEN))
    assert [d for d in log(world) if d.event == "firing"] == [ops, *log(world, id=pager.id)]
    world.tick(world.rows.samples(120))
    assert world.recorder.told("pager")[-1][0] == "resolved"


def test_run_that_crashes_or_is_lost_is_told_and_its_return_too(world: NotifiedWorld) -> None:
    """By the same name, or an Alertmanager would never close it."""
    world.now_s += 7.0
    world.tick()
    assert world.recorder.told() == [("firing", "run_down", "pending")]
    assert '"sentence":"lost: No word since' in world.recorder.handed[0].body
    world.greet()
    assert world.recorder.told()[1:] == [("resolved", "run_down", "pending")]
    world.tick(m.Bye(world.rows.seq - 1, "exception"))
    assert world.recorder.told()[2:] == [("firing", "run_down", "pending")]


def test_run_that_is_started_again_resolves_what_was_told_of_the_attempt_before(world: NotifiedWorld) -> None:
    """By the name of that attempt, also after a restart of the daemon in between; and nothing is kept of each attempt."""
    for attempt in range(1, 4):
        world.tick(m.Bye(world.rows.seq - 1, "exception"), peer=f"p{attempt}".encode() if attempt > 1 else b"p")
        (down,) = log(world, channel="ops", event="firing", subject=f"ant-ppo/{attempt}")
        settle(world, down)
        if attempt == 2:
            world.restart()
        world.tick(hello(session=f"s{attempt + 1}", launch_id=f"l{attempt + 1}"), peer=f"p{attempt + 1}".encode())
        (over,) = log(world, channel="ops", event="resolved", subject=f"ant-ppo/{attempt}")
        assert f'"sentence":"attempt {attempt + 1} began"' in over.body
    assert [subject for _, subject in world.pipeline._notifying._told if subject.startswith("ant-ppo/")] == []


@pytest.mark.parametrize("how", ["closed", "exception", "interrupted"])
def test_anomaly_that_fires_when_its_run_ends_is_told_to_be_over_and_stays_as_it_is_recorded(
    world: NotifiedWorld, how: str
) -> None:
    """An Alertmanager would be told of it for ever. Nothing that is done about it later tells that it fires again."""
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.tick(m.Bye(world.rows.seq - 1, how))
    told = [told for told in world.recorder.told() if told[1] == "nonfinite"]
    assert told == [("firing", "nonfinite", "pending"), ("resolved", "nonfinite", "pending")]
    over = next(d for d in world.recorder.handed if d.event == "resolved")
    assert "It was firing when the run ended." in over.body
    (open_one,) = world.view().open_anomalies
    assert open_one.state == "firing"
    for made in log(world, state="pending"):
        settle(world, made)
    handed = len(world.recorder.handed)
    world.ask(CreateSilence("s1", None, None, None, "night", "owner", HOUR))
    world.ask(EndSilence("s1"))
    world.now_s += 1000.0
    world.tick()
    assert len(world.recorder.handed) == handed
    world.restart()
    world.tick()
    assert [(d.event, d.state) for d in world.recorder.handed if "nonfinite" in d.body] == [("resolved", "delivered")] * 2


def test_anomaly_of_a_lost_run_is_over_after_a_minute_and_fires_again_when_the_run_is_back(world: NotifiedWorld) -> None:
    """A network that breaks for seconds tells nobody that what fires is over."""
    world.tick(world.rows.samples(1, changed=BROKEN))

    def told() -> list[str]:
        return [event for event, kind, _ in world.recorder.told() if kind == "nonfinite"]

    world.now_s += 7.0
    world.tick()
    world.now_s += 59.0
    world.tick()
    assert (world.view().state, told()) == ("lost", ["firing"])
    world.now_s += 2.0
    world.tick()
    assert told() == ["firing", "resolved"]
    world.greet()
    assert told() == ["firing", "resolved", "firing"]


@pytest.mark.promise("full-told")
@pytest.mark.parametrize("failures", [1, 4])
def test_store_that_cannot_be_written_is_told_past_it_and_is_a_gap_of_the_run_afterwards(
    world: NotifiedWorld, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """Nobody looks at a daemon that cannot record. A moment's failure calls nobody."""
    commit, left = world.store.commit, [failures]

    def fail(batch: Commit) -> None:
        if left[0]:
            left[0] -= 1
            world.now_s += 2.0
            raise GradwatchError("data-dir-unusable", where="disk", expected="room", got="none")
        commit(batch)

    monkeypatch.setattr(world.store, "commit", fail)
    monkeypatch.setattr("gradwatch_daemon.pipeline.pipeline.COMMIT_RETRY_S", 0.0)
    world.tick(world.rows.samples(1))
    told = [(d.channel, d.event, json.loads(d.body)["sentence"]) for d in world.recorder.handed if "store_down" in d.body]
    assert [(channel, event) for channel, event, _ in told] == (
        [(channel, event) for event in ("firing", "resolved") for channel in ("ops", "pager")] if failures == 4 else []
    )
    assert all("nothing is acked" in said or "after 8.0 s; nothing acked is lost" in said for _, _, said in told)
    assert log(world) == []
    world.tick()
    (gap,) = world.view().open_anomalies
    assert (gap.kind, gap.severity) == ("telemetry_gap", Severity.INFO)
    assert f"no acks for {2.0 * failures:.1f} s: store unwritable; no record lost" in gap.sentence
    for made in world.recorder.handed:
        world.pipeline.mailbox.submit(Outcome(made.id, "delivered", 1, "", 0))
    world.tick(world.rows.samples(1))


def test_run_that_ended_in_order_tells_nobody(world: NotifiedWorld) -> None:
    """Finished is no alarm."""
    world.tick(m.Bye(world.rows.seq - 1, "closed"))
    assert world.recorder.handed == []


@pytest.mark.parametrize("comes_back", [True, False])
def test_trainer_that_does_not_come_back_after_a_restart_is_told_of_after_a_minute(
    world: NotifiedWorld, comes_back: bool
) -> None:
    """Until then it may only not have greeted yet."""
    world.restart()
    world.now_s += 30.0
    world.tick()
    if comes_back:
        world.greet()
    assert world.recorder.handed == []
    world.now_s += 31.0
    world.tick(*([m.Ping(1)] if comes_back else []))
    told = [told for told in world.recorder.told() if told[1] == "run_down"]
    assert told == ([] if comes_back else [("firing", "run_down", "pending")])


def test_pending_beyond_the_bound_drops_the_oldest_and_says_so(world: NotifiedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that is down for a day must not fill the store or the memory."""
    monkeypatch.setattr(notifying, "PENDING_MAX", 1)
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.tick(world.rows.samples(120))
    first, second = log(world, channel="ops")
    assert (first.state, first.answer) == ("dropped", "more than 1 were pending")
    assert second.state == "pending"
    assert first.id in world.recorder.dropped
