"""Whatever client a user has: the same small life of a task, and the client is afterwards what it was."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis
import redis.asyncio

from deadletter import BackendUnavailable, DeadLetterQueue, State, Task

from ..redis_cluster import Cluster
from ..redis_servers import Server, debian, debian_program, free_ports, valkey, valkey_program

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


def certified(folder: Path, names: str) -> tuple[Path, list[str]]:
    """A certificate for some names that signs itself, and the options of a server that shows it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    options = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    return certificate, [*options, "--tls-ca-cert-file", str(certificate)]


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A server that asks for a password and speaks TLS alone, with a certificate that signs itself: (port, file)."""
    certificate, options = certified(tmp_path, "DNS:localhost,IP:127.0.0.1")
    [port] = free_ports(1)
    server = Server(debian_program(), "--tls-port", str(port), *options)
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


HOSTNAMES = ("--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname")


def hosts(dlq: DeadLetterQueue) -> set[str]:
    """Where a queue on a cluster connects to, but for the nodes that it was told of."""
    connections: Any = dlq.backend._connections  # type: ignore[attr-defined]
    return {host for host, _ in connections._topology.replicas}


@pytest.mark.full
@pytest.mark.parametrize("program", [valkey_program, debian_program], ids=["valkey", "debian"])
@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "text"])
async def test_a_cluster_that_announces_hostnames(program: Any, decode: bool) -> None:
    """It is asked at an address, and its nodes are met by the names that it tells."""
    cluster = Cluster(program(), *HOSTNAMES)
    try:
        with redis.RedisCluster(**cluster.startup, decode_responses=decode) as client:
            await lifetime(client)
            async with DeadLetterQueue(client) as dlq:
                await dlq.enqueue(Task(type="t"))
                assert hosts(dlq) == {"localhost"}
    finally:
        cluster.end()


@contextmanager
def cluster_over_tls(folder: Path, names: str) -> Iterator[tuple[Cluster, Path]]:
    """A cluster that speaks TLS alone, to its own nodes too, and the certificate that all show."""
    certificate, options = certified(folder, names)
    secure = ("--tls-cluster", "yes", "--tls-replication", "yes")
    cluster = Cluster(debian_program(), *HOSTNAMES, *options, *secure, replicas=1, secure=True)
    try:
        yield cluster, certificate
    finally:
        cluster.end()


@pytest.mark.full
async def test_a_cluster_over_tls_whose_certificate_names_hosts_alone(tmp_path: Path) -> None:
    """No node can be trusted at its address."""
    with cluster_over_tls(tmp_path, "DNS:localhost") as (cluster, certificate):
        url = f"redis+cluster://localhost:{cluster.ports[1]}?ssl=true&ssl_ca_certs={certificate}"
        await lifetime(url)
        async with DeadLetterQueue(url) as dlq:
            await dlq.enqueue(Task(type="t"))
            assert hosts(dlq) == {"localhost"}
        for wrong in (url.replace("localhost", "127.0.0.1"), url.partition("&")[0]):
            with pytest.raises(BackendUnavailable):
                await DeadLetterQueue(wrong).open()


# redis-py itself asks for the address of localhost, and for that address's certificate.
BOTH = "DNS:localhost,IP:127.0.0.1"


@pytest.mark.full
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_asyncio_client_of_a_cluster_over_tls(tmp_path: Path) -> None:
    with cluster_over_tls(tmp_path, BOTH) as (cluster, certificate):
        trusted: dict[str, Any] = {"host": "localhost", "port": cluster.ports[0], "ssl": True}
        async with redis.asyncio.RedisCluster(**trusted, ssl_ca_certs=str(certificate)) as client:
            await lifetime(client)
