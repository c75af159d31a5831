"""Whatever client a user has: the same small life of a task, and the client is afterwards what it was."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis
import redis.asyncio

from deadletter import BackendUnavailable, DeadLetterQueue, State, Task

from ..redis_servers import Server, debian, debian_program, free_ports, valkey

pytestmark = pytest.mark.anyio

# As docs/how-to/redis.md has it.
ACL = (
    "resetkeys resetchannels -@all ~dl:* &dl:* +@read +@write +@scripting +@pubsub +@connection -@dangerous +info +time"
)


async def lifetime(client: Any) -> None:
    """Enqueue, fail, die, be sent back, succeed; a subscriber hears of the death."""
    async with DeadLetterQueue(client, retry_delays=[0]) as dlq, dlq.subscribe("dead") as events:
        fails = [True, True]

        @dlq.processor("t", max_retries=1)
        async def t(task: Task) -> None:
            if fails:
                fails.pop()
                raise ValueError(task.payload["text"])

        task_id = await dlq.enqueue(Task(type="t", payload={"text": "né"}))
        await dlq.worker().run_until_idle()
        with anyio.fail_after(10):
            assert (await anext(events)).task_id == task_id
        record = await dlq.get(task_id)
        assert (record.state, record.attempts, record.history[-1].message) == (State.DEAD, 2, "né")
        await dlq.retry(task_id)
        await dlq.worker().run_until_idle()
        assert (await dlq.get(task_id)).state is State.SUCCEEDED


def place(server: Server) -> dict[str, Any]:
    url = server.emptied()
    return {"unix_socket_path": str(server.socket), "db": int(url.rpartition("=")[2])}


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "text"])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_blocking_client(protocol: int, decode: bool) -> None:
    with redis.Redis(**place(valkey()), protocol=protocol, decode_responses=decode) as client:
        client.set("mine", "x")
        options = copy.copy(client.connection_pool.connection_kwargs)
        await lifetime(client)
        assert client.connection_pool.connection_kwargs == options
        assert client.get("mine") == ("x" if decode else b"x")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "text"])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_an_asyncio_client(protocol: int, decode: bool) -> None:
    async with redis.asyncio.Redis(**place(valkey()), protocol=protocol, decode_responses=decode) as client:
        await client.set("mine", "x")
        options = copy.copy(client.connection_pool.connection_kwargs)
        await lifetime(client)
        assert client.connection_pool.connection_kwargs == options
        assert await client.get("mine") == ("x" if decode else b"x")


@pytest.mark.full
@pytest.mark.parametrize("program", [valkey, debian], ids=["valkey", "debian"])
async def test_a_user_with_the_least_rights(program: Any) -> None:
    """The rights of the how-to suffice, and reach nobody else's keys."""
    server = program()
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">secret", *ACL.split())
    with redis.Redis(**place(server), username="worker", password="secret") as client:
        await lifetime(client)
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("other")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.flushall()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A server that asks for a password and speaks TLS alone, with a certificate that signs itself: (port, file)."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    [port] = free_ports(1)
    options = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    server = Server(debian_program(), *options, "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no")
    with server.client() as admin:
        admin.config_set("requirepass", "s3cret")
    yield port, certificate
    server.end()


@pytest.mark.full
async def test_tls_and_a_password(secure: tuple[int, Path]) -> None:
    """By a client and by a URL; a certificate that nobody vouches for is refused, and the password is not told."""
    port, certificate = secure
    trusted: dict[str, Any] = {"host": "localhost", "port": port, "password": "s3cret", "ssl": True}
    with redis.Redis(**trusted, ssl_ca_certs=str(certificate)) as client:
        await lifetime(client)
        assert client.ping()
    await lifetime(f"rediss://:s3cret@localhost:{port}/1?ssl_ca_certs={certificate}")
    for url in (
        f"rediss://:s3cret@localhost:{port}/0",
        f"rediss://:wr0ng@localhost:{port}/0?ssl_ca_certs={certificate}",
    ):
        with pytest.raises(BackendUnavailable) as refused:
            await DeadLetterQueue(url).open()
        assert "s3cret" not in str(refused.value)
        assert "wr0ng" not in str(refused.value)
