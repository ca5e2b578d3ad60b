"""Keys of agents on other machines: who may send over the network."""

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request

from gradwatch_contracts.connection import CurveKeys, write_endpoint
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api import access_models as models
from gradwatch_daemon.api.access import Key
from gradwatch_daemon.api.context import Keyring, context_of
from gradwatch_daemon.api.numbers import Answer, time_text
from gradwatch_daemon.api.problems import ApiError, body_fault

router = APIRouter(prefix="/keys", tags=["access"])

KeyName = Annotated[str, Path(description="Name of the key", examples=["gpu7"])]


def key_item(key: Key) -> models.KeyItem:
    """A key as it is shown."""
    return models.KeyItem(name=key.name, public=key.public, created_at=time_text(key.created_ns))


def keyring_of(request: Request) -> Keyring:
    """The keyring.

    Raises:
        ApiError: `ingest-local` where agents of other machines cannot reach the daemon at all.
    """
    keyring = context_of(request).keyring
    if keyring is None:
        raise ApiError("ingest-local")
    return keyring


@router.get("", response_model=models.KeyList, operation_id="list_keys", summary="Agents of other machines that may send")
async def list_keys(request: Request) -> Answer:
    """Oldest first."""
    items = [key_item(key) for key in keyring_of(request).book.keys]
    return Answer(models.KeyList(items=items, next=None).model_dump())


@router.post("", response_model=models.KeyMade, status_code=201, operation_id="create_key", summary="Let an agent in")
async def create_key(request: Request, body: models.KeyBody) -> Answer:
    """Makes a key pair, registers the public one, and answers with the endpoint for the trainer. Its secret is not kept."""
    keyring = keyring_of(request)
    public, secret = keyring.make_pair()
    try:
        key = keyring.book.add(body.name, public, time.time_ns())
    except GradwatchError as error:
        raise body_fault("body/name", error) from error
    endpoint = write_endpoint(keyring.address, CurveKeys(keyring.server, public, secret))
    return Answer(models.KeyMade(**key_item(key).model_dump(), endpoint=endpoint).model_dump(), status_code=201)


@router.delete("/{name}", response_model=models.KeyItem, operation_id="revoke_key", summary="Let an agent in no longer")
async def revoke_key(request: Request, name: KeyName) -> Answer:
    """Its next frame is refused, also on a connection that is open."""
    return Answer(key_item(keyring_of(request).book.revoke(name)).model_dump())
