"""Commands: ask a run to do something, and see whether it did."""

import json
import time
from collections.abc import Callable
from typing import Annotated, BinaryIO, Literal
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request

from gradwatch_contracts.control import ControlState, Verb
from gradwatch_contracts.limits import COMMAND_ARGS_MAX, NAME_CHARS_MAX, PROFILE_UPDATES_MAX
from gradwatch_contracts.names import ID, VERB, nearest
from gradwatch_daemon.api.context import ApiContext
from gradwatch_daemon.api.control_models import ArtifactItem, CommandBody, CommandItem, CommandList
from gradwatch_daemon.api.cursors import Key, page
from gradwatch_daemon.api.events import Event
from gradwatch_daemon.api.files import FileAnswer
from gradwatch_daemon.api.hub import Client
from gradwatch_daemon.api.numbers import Answer, plain, time_text
from gradwatch_daemon.api.parameters import LIMIT, Cursor, Limit, RunName, find_run
from gradwatch_daemon.api.problems import ApiError, FieldFault
from gradwatch_daemon.api.runs import rank_items
from gradwatch_daemon.api.sentences import command_sentence
from gradwatch_daemon.api.submission import submit
from gradwatch_daemon.records import RunView
from gradwatch_daemon.records.commands import ArtifactRecord, CancelCommand, CommandRecord, RequestCommand

WAIT_MAX_S = 30.0
_UNDECIDED = (ControlState.REQUESTED, ControlState.DELIVERED)

Wait = Annotated[float, Query(ge=0, le=WAIT_MAX_S, allow_inf_nan=False, description="Seconds to wait for `until`")]
Until = Annotated[
    Literal["applied", "ended"],
    Query(description="applied: until the trainer has begun it, or will not; ended: until it is over"),
]
CommandId = Annotated[str, Path(alias="id", description="Id of the command")]

router = APIRouter(tags=["commands"])


def command_item(command: CommandRecord) -> CommandItem:
    """One command, as GET and the stream show it."""
    return CommandItem(
        id=command.id,
        run=command.run,
        verb=command.verb,
        args=plain(command.args),
        origin=command.origin,
        reason=command.reason,
        state=command.state.value,
        requested_at=time_text(command.requested_ns),
        expires_at=time_text(command.expires_ns),
        update_applied=command.update_applied,
        update_ended=command.update_ended,
        ended_why=command.ended_why,
        ranks=rank_items(command.ranks),
        artifact=None if command.artifact is None else artifact_item(command, command.artifact),
        sentence=command_sentence(command),
    )


def artifact_item(command: CommandRecord, artifact: ArtifactRecord) -> ArtifactItem:
    """The file of a command."""
    url = f"/api/v1/runs/{quote(command.run, safe='')}/artifacts/{quote(command.id, safe='')}"
    return ArtifactItem(name=artifact.name, bytes=artifact.bytes, url=url)


def read_body(body: CommandBody, view: RunView) -> None:
    """Check a body beyond its types.

    Raises:
        ApiError: `invalid-body`, with every field that is wrong.
    """
    faults: list[FieldFault] = []
    if not VERB.fullmatch(body.verb):
        hint = nearest(body.verb.lower(), view.verbs)
        faults.append(FieldFault("body/verb", f"expected {VERB.pattern}, got {body.verb[:80]!r}", hint))
    if len(body.args) > COMMAND_ARGS_MAX or any(len(key) > NAME_CHARS_MAX for key in body.args):
        faults.append(FieldFault("body/args", f"expected at most {COMMAND_ARGS_MAX} arguments with short names"))
    large = [value for value in body.args.values() if isinstance(value, int) and not -(2**63) <= value < 2**63]
    if large or len(json.dumps(body.args)) > ARGS_CHARS_MAX:
        faults.append(FieldFault("body/args", f"expected 64-bit integers and {ARGS_CHARS_MAX} characters in all"))
    if body.id is not None and not ID.fullmatch(body.id):
        faults.append(FieldFault("body/id", f"expected {ID.pattern}, got {body.id[:80]!r}"))
    faults += profile_faults(body) if body.verb == Verb.PROFILE else []
    if faults:
        said = "; ".join(f"{fault.pointer.partition('/')[2]}: {fault.message}" for fault in faults)
        hint = next((fault.did_you_mean for fault in faults if fault.did_you_mean), None)
        raise ApiError("invalid-body", where=said, did_you_mean=hint, faults=faults)


def profile_faults(body: CommandBody) -> list[FieldFault]:
    """What is wrong with the arguments of a profile: the trainer would refuse it too, an update later."""
    faults = []
    for name, value in body.args.items():
        if name not in ("updates", "stacks"):
            hint = nearest(name, ("updates", "stacks"))
            faults.append(FieldFault(f"body/args/{name[:80]}", "profile takes updates and stacks", hint))
        elif name == "updates" and (type(value) is not int or not 1 <= value <= PROFILE_UPDATES_MAX):
            faults.append(FieldFault("body/args/updates", f"expected 1 to {PROFILE_UPDATES_MAX}, got {value!r:.40}"))
        elif name == "stacks" and not isinstance(value, bool):
            faults.append(FieldFault("body/args/stacks", f"expected true or false, got {value!r:.40}"))
    return faults


ARGS_CHARS_MAX = 16 * 1024
"""Of all arguments as JSON: they travel in one frame and are kept with the command."""


async def _find(context: ApiContext, run: str, id_: str) -> CommandRecord:
    command = await anyio.to_thread.run_sync(context.reader.command, run, id_)
    if command is None:
        raise ApiError("command-not-found", where="id", expected=f"the id of a command of {run}", got=repr(id_[:80]))
    return command


def _waits(until: str) -> Callable[[ControlState], bool]:
    """Whether a state is not yet what is waited for."""
    return (lambda state: state.open) if until == "ended" else (lambda state: state in _UNDECIDED)


async def _settle(command: CommandRecord, client: Client, wait_s: float, until: str) -> CommandRecord:
    """The newest state of a command, once it is decided or after `wait_s`; `client` was subscribed before it was read."""
    deadline, waits = time.monotonic() + wait_s, _waits(until)
    while waits(command.state) and not client.ended and (left := deadline - time.monotonic()) > 0:
        event = await client.take(left)
        if isinstance(event, Event) and isinstance(event.payload, CommandRecord) and event.payload.id == command.id:
            command = event.payload
    return command


@router.post(
    "/runs/{run}/commands",
    response_model=CommandItem,
    status_code=202,
    operation_id="create_command",
    summary="Ask a run to do something",
)
async def create_command(
    request: Request, run: RunName, body: CommandBody, wait: Wait = 0.0, until: Until = "applied"
) -> Answer:
    """A verb that its trainer declares. The same `id` with the same content again is the same command."""
    context, view = find_run(request, run)
    read_body(body, view)
    wanted = RequestCommand(run, body.id or context.new_id(), body.verb, body.args, body.reason, body.rank, body.expires_s)
    client = context.hub.subscribe({"command"}, {run})
    try:
        command = await _settle(await submit(context, wanted, CommandRecord), client, wait, until)
    finally:
        context.hub.unsubscribe(client)
    place = f"/api/v1/runs/{quote(run, safe='')}/commands/{quote(command.id, safe='')}"
    return Answer(command_item(command).model_dump(), status_code=202, headers={"Location": place})


@router.get(
    "/runs/{run}/commands",
    response_model=CommandList,
    operation_id="list_commands",
    summary="Commands of a run, newest first",
)
async def list_commands(request: Request, run: RunName, limit: Limit = LIMIT, cursor: Cursor = None) -> Answer:
    """By operators and by rules, in one list."""
    context, _ = find_run(request, run)
    known = await anyio.to_thread.run_sync(context.reader.commands, run)
    shown, following = page(known, _key, limit, cursor)
    return Answer(CommandList(items=[command_item(command) for command in shown], next=following).model_dump())


def _key(command: CommandRecord) -> Key:
    return command.requested_ns, command.id


@router.get("/runs/{run}/commands/{id}", response_model=CommandItem, operation_id="get_command", summary="One command")
async def get_command(request: Request, run: RunName, id_: CommandId, wait: Wait = 0.0, until: Until = "applied") -> Answer:
    """What became of it; with `wait`, once that is decided."""
    context, _ = find_run(request, run)
    client = context.hub.subscribe({"command"}, {run})
    try:
        command = await _settle(await _find(context, run, id_), client, wait, until)
    finally:
        context.hub.unsubscribe(client)
    return Answer(command_item(command).model_dump())


@router.delete(
    "/runs/{run}/commands/{id}",
    response_model=CommandItem,
    status_code=202,
    operation_id="cancel_command",
    summary="Take a command back",
)
async def cancel_command(request: Request, run: RunName, id_: CommandId) -> Answer:
    """One that has not begun is cancelled at once; one that has ends when the trainer says so. Again changes nothing."""
    context, _ = find_run(request, run)
    command = await submit(context, CancelCommand(run, id_), CommandRecord)
    return Answer(command_item(command).model_dump(), status_code=202)


@router.get(
    "/runs/{run}/artifacts/{id}",
    response_class=FileAnswer,
    status_code=200,
    operation_id="get_artifact",
    summary="The file that came for a command",
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_artifact(request: Request, run: RunName, id_: CommandId) -> FileAnswer:
    """Of a profile: a trace for Perfetto or chrome://tracing, gzipped."""
    context, _ = find_run(request, run)
    command = await _find(context, run, id_)
    file = None if command.artifact is None else await anyio.to_thread.run_sync(_open, context, run, id_)
    if command.artifact is None or file is None:
        code, got = ("artifact-not-found", "none came") if command.artifact is None else ("artifact-gone", "it was deleted")
        raise ApiError(code, where=f"command {id_[:64]}", expected="a file", got=got)
    return FileAnswer(file, command.artifact.name)


def _open(context: ApiContext, run: str, id_: str) -> BinaryIO | None:
    path = context.artifact(run, id_)
    try:
        return None if path is None else open(path, "rb")
    except FileNotFoundError:  # it made room between the two
        return None
