"""What one tick takes."""

from __future__ import annotations

from gradwatch_daemon.pipeline.portion import BYTES, FRAMES, SCALE_MAX, TICK_S, Portion


def after(*took_s: float) -> Portion:
    """A portion that has learned from ticks."""
    portion = Portion()
    for seconds in took_s:
        portion.learn(seconds)
    return portion


def test_portion_of_quick_ticks_grows_to_what_takes_the_time_of_one() -> None:
    """Rows that cost half as much are taken twice as many at once, frames as bytes; when they cost more, fewer again."""
    cost_s, portion = TICK_S / (2 * BYTES), Portion()
    for _ in range(20):
        portion.learn(portion.bytes * cost_s)
    assert abs(portion.bytes / (2 * BYTES) - 1) < 0.01
    assert abs(portion.frames / (2 * FRAMES) - 1) < 0.01
    for _ in range(20):
        portion.learn(portion.bytes * 1.5 * cost_s)
    assert abs(portion.bytes / (4 / 3 * BYTES) - 1) < 0.01


def test_portion_after_one_odd_tick_moves_by_a_step_and_never_past_its_bounds() -> None:
    """A stop of seconds halves it once, and neither a busy machine nor a clock that stands still leads out of the bounds."""
    assert after(*[0.0] * 50).frames == FRAMES * SCALE_MAX
    assert after(*[0.0] * 50, 60.0).bytes == BYTES * SCALE_MAX / 2
    assert after(0.0).bytes <= 1.25 * BYTES
    assert after(*[60.0] * 50).bytes == BYTES
