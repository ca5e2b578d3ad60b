"""What streams are told: one event, and rows and runs that wait to be told together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradwatch_daemon.api.numbers import encode
from gradwatch_daemon.records import Anomaly, Escalation, Published, RunView, SignalBlock, Stream
from gradwatch_daemon.records.attention import Attention, Silence
from gradwatch_daemon.records.commands import CommandRecord


@dataclass(slots=True)
class Event:
    """One event, `run` '' where of no run. `n` is its number, 0 until it goes out; its frame is made when first needed, then
    shared by all clients and replays. `stale` is one of a run that a later one of the same run has replaced: nobody needs both,
    and the picture of a run is 8 kB."""

    topic: str
    run: str
    payload: Anomaly | Escalation | CommandRecord | RunView | Silence | Mapping[str, Any]
    attention: Attention | None = None
    n: int = 0
    frame: bytes = b""
    stale: bool = False

    def replace(self) -> None:
        """A later one says it anew: let go of what this one held."""
        self.stale, self.payload, self.frame = True, {}, b""


def frame(name: str, data: Any, id_: str = "") -> bytes:
    """The bytes of one server-sent event. `data` is one line of JSON, so it needs one data field."""
    head = f"id: {id_}\nevent: {name}\n" if id_ else f"event: {name}\n"
    return head.encode() + b"data: " + encode(data) + b"\n\n"


def event_of(published: Published) -> Event:
    """What is told of it. Rows are described at once: nothing that waits or is kept may keep their arrays alive."""
    payload = published.payload
    kept = _rows(payload) if isinstance(payload, SignalBlock) else payload
    return Event(published.topic, published.run, kept, published.attention)


class Recent:
    """Rows and runs since they were last told: of each stream of rows the extent, of each run how it is now."""

    def __init__(self) -> None:
        self._events: dict[str | Stream, Event] = {}

    def __len__(self) -> int:
        return len(self._events)

    def put(self, published: Published) -> None:
        """Merge rows with those of their stream, or put a run in the place of what it was."""
        block = published.payload
        if not isinstance(block, SignalBlock):
            self._events[published.run] = event_of(published)
            return
        known, new = self._events.get(block.stream), event_of(published)
        if known is not None and isinstance(known.payload, dict) and isinstance(new.payload, dict):
            rows, more = known.payload, new.payload
            rows["update_first"] = min(rows["update_first"], more["update_first"])
            rows["update_last"] = max(rows["update_last"], more["update_last"])
            rows["n"] += more["n"]
        else:
            self._events[block.stream] = new

    def take(self) -> list[Event]:
        """All of it."""
        taken = list(self._events.values())
        self._events.clear()
        return taken


def _rows(block: SignalBlock) -> dict[str, Any]:
    stream = block.stream
    return {
        "run": stream.run,
        "attempt": stream.attempt,
        "rank": stream.rank_shown,
        "update_first": int(block.update.min()),
        "update_last": int(block.update.max()),
        "n": len(block),
    }
