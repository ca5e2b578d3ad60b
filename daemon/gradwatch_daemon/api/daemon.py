"""The daemon itself: its version, clock, disk and counts."""

import anyio.to_thread
from fastapi import APIRouter, Request

from gradwatch_contracts import PROTOCOL_MAJOR
from gradwatch_daemon.api import service_models as models
from gradwatch_daemon.api.context import context_of
from gradwatch_daemon.api.numbers import Answer, time_text

router = APIRouter(tags=["health"])


@router.get("/daemon", response_model=models.DaemonAnswer, operation_id="get_daemon", summary="The daemon itself")
async def get_daemon(request: Request) -> Answer:
    """What `gradwatch status` and `gradwatch doctor` look at. Answers also while the daemon is not ready."""
    context = context_of(request)
    health = await anyio.to_thread.run_sync(context.health)
    trouble = list(context.ready())
    answer = models.DaemonAnswer(
        version=context.version,
        protocol=PROTOCOL_MAJOR,
        profile=context.profile,
        pid=health.pid,
        started_at=time_text(health.started_ns),
        now=time_text(health.now_ns),
        ready=not trouble,
        trouble=trouble,
        sqlite=health.sqlite,
        data_dir=models.DataDirectory(
            path=health.data_dir, free_bytes=health.data_free_bytes, size_bytes=health.data_size_bytes
        ),
        streams=len(context.hub.clients),
        frames=health.frames,
        rows=health.rows,
        refused=dict(health.refused),
        quarantines=health.quarantines,
        commits=health.commits,
        commit_failures=health.commit_failures,
        ack=health.ack,
    )
    return Answer(answer.model_dump())
