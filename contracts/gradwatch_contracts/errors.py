"""One table of everything that can be refused: code, sentence, HTTP status, exit code.

The agent, the daemon, the HTTP problem documents and the command line all read this table, so one mistake is
described by one sentence wherever it is met.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of refusal.

    `title` is a sentence without numbers; `hint` says what to do next; `http` is the status of the problem document;
    `exit` is the exit code of a command that ends with it (2 usage, 3 not found, 4 unreachable, 5 refused).
    """

    slug: str
    title: str
    hint: str
    http: int
    exit: int


_ALL = (
    Code("frame-malformed", "The bytes are not a gradwatch frame.", "Check that agent and daemon are both gradwatch.", 400, 2),
    Code("frame-too-large", "The frame is larger than the limit.", "Send fewer rows in one message.", 413, 2),
    Code("frame-corrupt", "The checksum of the frame does not match.", "Check the transport between agent and daemon.", 400, 2),
    Code("frame-unknown-type", "The frame type is unknown to this version.", "Upgrade the older of agent and daemon.", 400, 2),
    Code(
        "body-malformed", "The body is not the message its header announces.", "Upgrade the older of agent and daemon.", 400, 2
    ),
    Code("protocol-unsupported", "The protocol version is not supported.", "Install the same gradwatch on both sides.", 400, 5),
    Code("schema-unknown", "The rows name a schema that was not sent.", "Send SCHEMA before SAMPLES.", 400, 2),
    Code("schema-mismatch", "The rows do not fit their schema.", "Send one value per slot and one status per column.", 400, 2),
    Code("not-greeted", "Data came before HELLO.", "Send HELLO first; the daemon may have restarted.", 400, 2),
    Code(
        "secret-wrong",
        "The secret of the runtime directory is missing or wrong.",
        "Read it from connection.json; it is written by `gradwatch serve`.",
        401,
        5,
    ),
    Code(
        "quarantined",
        "This peer sent too many bad frames and is ignored for a while.",
        "Fix the sender; the daemon listens again after a minute.",
        429,
        5,
    ),
    Code("run-not-found", "No run has this name.", "List the runs with `gradwatch runs`.", 404, 3),
    Code("anomaly-not-found", "No anomaly has this id.", "List them with `gradwatch anomalies`.", 404, 3),
    Code(
        "escalation-not-found",
        "No escalation of this run has this id.",
        "List them with GET /api/v1/runs/RUN/escalations.",
        404,
        3,
    ),
    Code(
        "command-not-found",
        "No command of this run has this id.",
        "List them with `gradwatch commands RUN`.",
        404,
        3,
    ),
    Code(
        "artifact-not-found",
        "This command has no file.",
        "See the command's `artifact`: null where no whole file came.",
        404,
        3,
    ),
    Code(
        "artifact-gone",
        "The file of this command was deleted.",
        "Files go by age and by size, oldest first: see keep_days and keep_bytes in docs/store.md. Ask for a new one.",
        410,
        3,
    ),
    Code(
        "command-under-way",
        "A command of this verb is under way in this run.",
        "Wait for its end, or cancel it: DELETE /api/v1/runs/RUN/commands/ID.",
        409,
        5,
    ),
    Code(
        "budget-spent",
        "The rules have held this run above its base for as long as they may.",
        "Wait for the update named, or ask as a person: leave `anomaly` out.",
        409,
        5,
    ),
    Code(
        "level-changed",
        "Somebody else has changed the level of this run in the meantime.",
        "Look at it again, and ask with its newest revision.",
        409,
        5,
    ),
    Code(
        "rank-not-live",
        "No live process of this run has this rank.",
        "Leave the rank out, or start that process again.",
        409,
        5,
    ),
    Code("signal-not-found", "No signal of this run has this name.", "List them with GET /api/v1/runs/RUN/signals.", 404, 3),
    Code("route-not-found", "There is nothing at this address.", "See /openapi.json for what there is.", 404, 3),
    Code("method-not-allowed", "This address does not take this method.", "See /openapi.json for what it takes.", 405, 2),
    Code("invalid-parameter", "A parameter is unknown or has a bad value.", "See the field errors and /openapi.json.", 400, 2),
    Code("invalid-body", "The request body is not what this address takes.", "See the field errors and /openapi.json.", 422, 2),
    Code("body-too-large", "The request body is larger than the limit.", "Send less in one request.", 413, 2),
    Code("invalid-argument", "An argument has a bad value.", "Correct the value that is named, and try again.", 400, 2),
    Code("unauthenticated", "The bearer token is missing or wrong.", "Print it with `gradwatch token`.", 401, 5),
    Code("forbidden", "The token does not allow this.", "Use one with a larger scope: `gradwatch token list`.", 403, 5),
    Code(
        "origin-not-allowed",
        "The request comes from a page of another address.",
        "Open the page under the address the daemon prints.",
        403,
        5,
    ),
    Code("rate-limited", "Too many changes in a short time.", "Wait for the time in Retry-After.", 429, 5),
    Code("key-not-found", "No agent key has this name.", "List them with `gradwatch keys list`.", 404, 3),
    Code(
        "ingest-local",
        "Agents of this machine alone can reach the daemon, so there are no keys to give out.",
        "Serve with --ingest tcp://ADDRESS:PORT beyond loopback.",
        409,
        5,
    ),
    Code("token-not-found", "No token has this name.", "List them with `gradwatch token list`.", 404, 3),
    Code(
        "host-not-allowed",
        "The Host header is not on the allow-list.",
        "Use 127.0.0.1 or add the name with --allowed-host.",
        421,
        5,
    ),
    Code(
        "run-not-live",
        "The run has no live session, so nothing can be applied to it.",
        "Start the trainer again, or read its record.",
        409,
        5,
    ),
    Code("idempotency-mismatch", "The id was used before for another request.", "Use a new id.", 409, 5),
    Code("too-many-escalations", "The run has too many open escalations.", "Cancel some, or wait for them to end.", 409, 5),
    Code("channel-not-found", "No channel has this name.", "List them with `gradwatch notify list`.", 404, 3),
    Code("silence-not-found", "No silence has this id.", "List them with `gradwatch silence list`.", 404, 3),
    Code("too-many-silences", "There are too many active silences.", "End some with `gradwatch silence end ID`.", 409, 5),
    Code(
        "unsupported-by-run",
        "The trainer of this run did not declare this ability.",
        "See docs/control.md for what declares it.",
        409,
        5,
    ),
    Code("config-invalid", "The configuration is not valid.", "Fix the key named in the message.", 400, 2),
    Code(
        "port-taken", "The address is already in use.", "Stop the other process, or choose another with the flag named.", 409, 5
    ),
    Code(
        "data-dir-unusable",
        "The data directory cannot be written.",
        "Choose another with --data-dir, or fix its permissions.",
        500,
        5,
    ),
    Code(
        "recording-unreadable",
        "The recording cannot be read.",
        "Name a data directory, its gradwatch.db, a bundle, a TensorBoard event file or a progress.csv.",
        422,
        5,
    ),
    Code(
        "replay-too-large",
        "The replay is larger than the daemon does on request.",
        "Narrow it with from and to, or use `gradwatch replay`, which has no limit.",
        413,
        5,
    ),
    Code(
        "export-too-large",
        "The export is larger than the daemon does on request.",
        "Narrow it with from and to, or use `gradwatch export` on the daemon's machine, which has no limit.",
        413,
        5,
    ),
    Code("export-failed", "The file was not written.", "Choose another place; the store itself is as it was.", 500, 5),
    Code("backup-failed", "The backup was not written.", "Choose another place; the store itself is as it was.", 500, 5),
    Code("daemon-unreachable", "No daemon answers.", "Start one with `gradwatch serve`.", 503, 4),
    Code("overloaded", "The daemon is busy.", "Try again in a moment.", 503, 4),
    Code("timed-out", "The wait ended before the state was reached.", "It may still come; ask for it again.", 504, 4),
    Code("not-ready", "The daemon is not ready to serve.", "See /readyz for the part that is not.", 503, 4),
    Code("internal", "gradwatch has a bug.", "Please report it with the traceback in the daemon's log.", 500, 1),
)

CODES: dict[str, Code] = {code.slug: code for code in _ALL}
"""Slug → code. Append-only: a slug keeps its meaning for ever."""


class GradwatchError(Exception):
    """A refusal with data: `code`, and where, expected, got. `str()` is the full sentence for a person."""

    def __init__(self, slug: str, *, where: str = "", expected: str = "", got: str = "", next_step: str = "") -> None:
        self.code = CODES[slug]
        self.where = where
        self.expected = expected
        self.got = got
        self.next_step = next_step or self.code.hint
        super().__init__(self.sentence)

    @property
    def detail(self) -> str:
        """Where, expected and got, without title and next step. Empty when nothing is known."""
        facts = [f"expected {self.expected}" if self.expected else "", f"got {self.got}" if self.got else ""]
        said = ", ".join(fact for fact in facts if fact)
        return f"{self.where}: {said}" if self.where and said else self.where or said

    @property
    def sentence(self) -> str:
        """What went wrong, with the numbers, and what to do next."""
        return " ".join(part for part in (self.code.title, f"({self.detail})" if self.detail else "", self.next_step) if part)


class ContractError(GradwatchError):
    """Bytes or values that break the contract between agent and daemon. Decoding raises nothing else."""
