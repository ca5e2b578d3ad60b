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
    assert play(UpdateRule(100), "s s loss@8 kl@8 episode@11 s s loss@16 s s loss@24") == [(4, 8), (8, 16)]


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
