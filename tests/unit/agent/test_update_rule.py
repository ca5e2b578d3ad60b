"""When an update of a script ends: by global_step behind its optimizer steps, else by their number."""

from __future__ import annotations

from gradwatch_agent.adapters.update_rule import BY_GLOBAL_STEP, Ended, UpdateRule


def play(rule: UpdateRule, script: str, *, trains: bool = True) -> list[tuple[int, float | None]]:
    """What ends where: `s` is a gradient and its step, `loss@64` a scalar. (position, global_step of the update that ended)."""
    ends = []
    for position, act in enumerate(script.split()):
        if act == "s":
            found = [rule.gradient(), rule.step(), rule.stepped()]
        else:
            tag, _, at = act.partition("@")
            found = [rule.scalar(tag, float(at), trains=trains)]
        ends += [(position, ended.at) for ended in found if isinstance(ended, Ended)]
    return ends


def test_update_of_a_cleanrl_script_ends_at_what_comes_after_its_losses() -> None:
    """An episode of the next rollout, or, where none ended in it, the next gradient."""
    rule = UpdateRule(100, ["episode"])
    assert play(rule, "s s loss@8 kl@8 episode@11 s s loss@16 s s loss@24") == [(4, 8), (8, 16)]


def test_tag_that_comes_late_is_of_the_next_update() -> None:
    """Whatever its name: nothing that was logged behind steps before has it, and its global_step is a later one."""
    assert play(UpdateRule(100), "s s loss@8 s s loss@16 other@19 s s loss@24") == [(3, 8), (6, 16)]


def test_tag_with_a_clock_of_its_own_ends_nothing() -> None:
    """An evaluation by iteration, before the losses or after them, in some updates; global_step is that of the losses."""
    script = "episode@3 s s eval@1 loss@8 kl@8 episode@9 s s loss@16 kl@16 episode@17 s s eval@3 loss@24 kl@24 episode@25"
    assert play(UpdateRule(100), script) == [(6, 8), (11, 16), (17, 24)]
    script = "s s loss@8 kl@8 eval@1 s s loss@16 kl@16 s s loss@24 kl@24 eval@3 s"
    assert play(UpdateRule(100), script) == [(5, 8), (9, 16), (14, 24)]


def test_losses_by_iteration_and_episodes_by_frames_end_an_update_at_each_rollout() -> None:
    """What comes while collecting is known by that, and not by its global_step."""
    script = "episode@300 s s loss@1 kl@1 episode@600 s s loss@2 kl@2 episode@900 s s loss@3"
    assert play(UpdateRule(100), script) == [(5, 1), (10, 2)]


def test_episodes_while_collecting_end_nothing() -> None:
    """They have a global_step of their own, and nothing was trained since the last update."""
    assert play(UpdateRule(100), "episode@3 episode@5 s s loss@8 episode@9 episode@12 s s loss@16") == [(5, 8)]


def test_update_that_has_logged_is_over_at_the_end_of_the_script() -> None:
    """One that has not is a part."""
    rule = UpdateRule(100)
    play(rule, "s s loss@8")
    assert rule.finish() == Ended(8, BY_GLOBAL_STEP)
    play(rule, "s s")
    assert rule.finish() is None


def test_script_that_logs_each_step_has_an_update_a_step() -> None:
    """Supervised training, with a global_step that counts steps."""
    assert play(UpdateRule(100), "s loss@0 s loss@1 s loss@2") == [(2, 0), (4, 1)]


def test_script_that_logs_within_an_update_is_recognised_after_its_first() -> None:
    """The same global_step again, after more steps: from then on only another one ends an update."""
    assert play(UpdateRule(100), "s loss@8 s loss@8 s loss@8 s loss@16 s loss@16 s loss@24") == [(2, 8), (7, 8), (11, 16)]


def test_script_without_global_step_ends_every_so_many_steps() -> None:
    """Until it logs one: then that holds."""
    rule = UpdateRule(3)
    assert play(rule, "s s s s s s") == [(2, None), (5, None)]
    assert play(rule, "s loss@1 s s s s loss@2 s") == [(2, 1), (7, 2)]


def test_script_without_an_optimizer_ends_when_a_tag_comes_again() -> None:
    """With another global_step; nothing else can be seen of it."""
    assert play(UpdateRule(100), "loss@0 lr@0 loss@1 lr@1 loss@1 loss@2", trains=False) == [(2, 0), (5, 1)]
    assert play(UpdateRule(100), "a@0 b@1 a@2", trains=False) == [(2, 1)]
