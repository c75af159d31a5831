"""A queue, and a worker where you want one, for as long as an ASGI application lives: FastAPI, Starlette, any other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue


def lifespan(
    dlq: DeadLetterQueue,
    *,
    worker: bool = False,
    within: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    **options: Any,
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """What an application takes as its ``lifespan=``: ``FastAPI(lifespan=lifespan(dlq, worker=True))``.

    The queue is opened before the first request, so that a store that is away is told at the start, and closed after
    the last. A worker runs beside the requests, in their event loop; at the end it drains.

    Args:
        worker: run one. ``options`` are those of ``dlq.worker``.
        within: a lifespan of your own, entered first and left last; what it yields is handed on.
    """

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Any]:
        async with _outer(within, app) as state, dlq:
            if not worker:
                yield state
                return
            working = dlq.worker(**options)
            async with anyio.create_task_group() as group:
                group.start_soon(working.run)
                try:
                    yield state
                finally:
                    working.stop()

    return run


@asynccontextmanager
async def _outer(within: Callable[[Any], AbstractAsyncContextManager[Any]] | None, app: Any) -> AsyncIterator[Any]:
    if within is None:
        yield None
        return
    async with within(app) as state:
        yield state


__all__ = ["lifespan"]
