"""What redis-py itself reaches: the same number of round trips, each a script that stores a task and indexes it."""

from __future__ import annotations

from _figures import Found, Stopwatch
from _stores import Store
from _work import tasks

SCRIPT = """#!lua
redis.call('HSET', KEYS[1], 'type', ARGV[1], 'body', ARGV[2], 'due', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[3], KEYS[1])
return 1
"""


async def one_by_one(store: Store, folder: str, n: int) -> Found:
    """One asyncio client, one EVALSHA after the other."""
    import orjson
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(store.url(folder)) as client:
        sha = await client.script_load(SCRIPT)
        bodies = [(task.id, orjson.dumps(dict(task.payload))) for task in tasks(n)]
        with Stopwatch() as taken:
            for at, (id_, body) in enumerate(bodies):
                await client.evalsha(sha, 2, id_, "due", "noop", body, at)
    return {"W1 bare EVALSHA": taken.rate(n)}


async def in_pipelines(store: Store, folder: str, n: int) -> Found:
    """The same, 100 a round trip."""
    import orjson
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(store.url(folder)) as client:
        sha = await client.script_load(SCRIPT)
        bodies = [(task.id, orjson.dumps(dict(task.payload))) for task in tasks(n)]
        with Stopwatch() as taken:
            for at in range(0, n, 100):
                pipeline = client.pipeline(transaction=False)
                for offset, (id_, body) in enumerate(bodies[at : at + 100]):
                    pipeline.evalsha(sha, 2, id_, "due", "noop", body, at + offset)
                await pipeline.execute()
    return {"W1 bare EVALSHA, 100 a pipeline": taken.rate(n)}
