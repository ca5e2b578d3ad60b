"""A run, an escalation and a command in plain words. Never "healthy" or "ok": what nobody could see is said first-hand."""

from collections.abc import Iterable

from gradwatch_contracts.control import ControlState, RankState, Severity
from gradwatch_daemon.records import DetectorState, Escalation, RunView
from gradwatch_daemon.records.commands import CommandRecord
from gradwatch_daemon.records.run import describe_beside


def run_sentence(view: RunView) -> str:
    """Where the run is, what was found, what cannot be seen, what was lost, what is left as a summary only, and who else trains
    under its name."""
    beside = describe_beside(view.beside, view.run.attempt)
    parts = (_progress(view), beside, _found(view), _unseen(view.detectors), _lost(view), _thinned(view))
    return " ".join(part for part in parts if part)


def _progress(view: RunView) -> str:
    state = view.state or view.run.state
    if view.update_last is None:
        return {
            "live": "Connected, no update has come yet.",
            "stalled": "No update has come yet.",
            "lost": "The connection was lost before any update came.",
        }.get(state, "It ended before any update came.")
    total = f" of {view.run.updates_total}" if view.run.updates_total is not None else ""
    at = f"update {view.update_last}{total}"
    return {
        "live": f"Training, {at}.",
        "slow": f"Training more slowly than usual, {at}.",
        "stalled": f"Standing still at {at}.",
        "lost": f"The connection was lost after {at}.",
        "finished": f"Finished after {at}.",
        "stopped": f"Stopped by hand after {at}.",
        "crashed": f"Crashed after {at}.",
    }.get(state, f"{state.capitalize()}, {at}.")


def _found(view: RunView) -> str:
    if not view.open_anomalies:
        return _nothing_found(view.detectors)
    worst_first = sorted(view.open_anomalies, key=lambda a: (-a.severity.rank, a.update_onset))
    counts = [
        f"{count} {severity.value}"
        for severity in reversed(Severity)
        if (count := sum(a.severity is severity for a in worst_first))
    ]
    noun = "anomaly" if len(worst_first) == 1 else "anomalies"
    worst = worst_first[0]
    also = "" if len(worst_first) == 1 else ", the worst"
    return f"{_join(counts)} {noun}{also} since update {worst.update_onset}: {worst.sentence.rstrip('.')}."


def _nothing_found(detectors: tuple[DetectorState, ...]) -> str:
    seeing = sum(d.state in ("armed", "firing") for d in detectors)
    if not detectors:
        return "No detector has judged it yet."
    if not seeing:
        return "Nothing can be said of anomalies: no detector can judge yet."
    if seeing == len(detectors):
        return f"No open anomaly; all {seeing} detectors can judge."
    return f"No open anomaly seen by the {seeing} of {len(detectors)} detectors that can judge."


def _unseen(detectors: tuple[DetectorState, ...]) -> str:
    said = []
    for state, word in (("blind", "blind"), ("learning", "still learning")):
        count = sum(d.state == state for d in detectors)
        if count:
            said.append(f"{count} of {len(detectors)} detectors {'is' if count == 1 else 'are'} {word}.")
    return " ".join(said)


def _lost(view: RunView) -> str:
    if not view.lost:
        return ""
    share = view.rows / (view.rows + view.lost)
    lost = "1 record was" if view.lost == 1 else f"{view.lost} records were"
    return f"{lost} lost, so {_percent(share)} of the run is covered."


def _thinned(view: RunView) -> str:
    return f"Of {view.thinned} of its {view.rows} updates only summaries of 64 are kept." if view.thinned else ""


def _percent(share: float) -> str:
    """Cut, not rounded: 99.96 % must not read as 100 %."""
    return f"{int(share * 1000) / 10:g} %"


def _join(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def ranks_late(ranks: Iterable[RankState]) -> dict[int, int]:
    """Rank → updates that it began after the first of them; without those that have not begun."""
    began = {one.rank: one.applied for one in ranks if one.applied is not None}
    first = min(began.values(), default=0)
    return {rank: update - first for rank, update in began.items()}


def _apart(ranks: Iterable[RankState]) -> str:
    """What to say where ranks did not begin together; '' where they did."""
    late = {rank: updates for rank, updates in ranks_late(ranks).items() if updates}
    if not late:
        return ""
    worst = max(late, key=lambda rank: late[rank])
    others = f"; {len(late)} were late" if len(late) > 1 else ""
    return f" Ranks began apart: rank {worst} {late[worst]} update{'s' if late[worst] != 1 else ''} after the first{others}."


def escalation_sentence(escalation: Escalation) -> str:
    """Where an escalation is in its life."""
    level = escalation.level.name.lower()
    span = f"{escalation.updates} update{'s' if escalation.updates != 1 else ''}"
    why = f": {escalation.ended_why}" if escalation.ended_why else ""
    applied, ended = escalation.update_applied, escalation.update_ended
    return {
        ControlState.REQUESTED: f"Asked for {level} for {span}; the trainer has not been told yet.",
        ControlState.DELIVERED: f"Sent {level} for {span}; the trainer has not applied it yet.",
        ControlState.APPLIED: f"Collecting at {level} since update {applied}, for {span}.",
        ControlState.ENDED: f"Collected at {level} from update {applied}, ended at update {ended}{why}.",
        ControlState.REJECTED: f"The trainer refused {level} for {span}{why}.",
        ControlState.EXPIRED: f"Expired before it was applied{why}.",
        ControlState.SUPERSEDED: f"Superseded by another one{why}.",
        ControlState.CANCELLED: f"Cancelled before it was applied{why}.",
        ControlState.LOST: f"The trainer was gone before it could answer{why}.",
    }[escalation.state] + _apart(escalation.ranks)


def command_sentence(command: CommandRecord) -> str:
    """Where a command is in its life."""
    verb = command.verb
    why = f": {command.ended_why}" if command.ended_why else ""
    back = ", and is told to end it" if command.ended_why else ""
    begun = f"began {verb} at update {command.update_applied}" if command.update_applied is not None else f"refused {verb}"
    return {
        ControlState.REQUESTED: f"Asked for {verb}; the trainer has not been told yet.",
        ControlState.DELIVERED: f"The trainer was told to {verb} and has not begun.",
        ControlState.APPLIED: f"The trainer does it since update {command.update_applied}{back}{why}.",
        ControlState.ENDED: f"The trainer did it at update {command.update_applied}{why}.",
        ControlState.REJECTED: f"The trainer {begun}{why}.",
        ControlState.EXPIRED: f"Expired{why}.",
        ControlState.SUPERSEDED: f"Another one took its place{why}.",
        ControlState.CANCELLED: f"Cancelled before it was begun{why}.",
        ControlState.LOST: f"The trainer was gone before it could answer{why}.",
    }[command.state] + _apart(command.ranks)
