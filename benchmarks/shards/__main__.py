"""What decisions and rewards cost a Valkey: `python -m benchmarks.shards [--decisions 20000]`.

The store's own scripts, driven without a service: on one server, on a cluster of three, with
`appendfsync always`, and where each write waits for a replica. Copies of decisions that a service
has made (10 arms, a query of 180 characters), each followed by its reward; then both streams are
read and dropped, as learner and archiver do (`followed`), and what is kept is what is left of a
decision. A server's CPU says what one core of it takes, however busy this machine is; wall time is
that of one Python client beside the servers on the same cores. With `--parts SECONDS` a whole
service stands on the cluster, and each of its parts is measured under load over HTTP.
docs/operating/scale.md is computed from these figures.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.serving.running import ARMS, configuration
from benchmarks.shards import driving, parts
from benchmarks.shards.driving import Figures
from benchmarks.shards.valkeys import Cluster, Node, free_ports, until

POLICIES = 12
CONCURRENCY = 64
WARM = 2_000  # decisions before what is measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--parts", type=float, metavar="SECONDS", help="a whole service instead")
    options = parser.parse_args()
    count = options.decisions
    names = ["default", *(f"policy-{i}" for i in range(1, POLICIES))]
    if options.parts:
        with tempfile.TemporaryDirectory() as name, servers(Path(name), "cluster") as at:
            told = parts.measure(Path(name), at[0], at[1], names, options.parts)
        print(", ".join(f"{name} {value:.1f}" for name, value in told.items()))
        return
    print("| servers | at a time | CPU us | a second and core | followed us | " + HEAD)
    print("| --- " * 14 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for label, kind, concurrency, given in RUNS:
            with servers(Path(folder) / label, kind, **given) as (url, nodes, replicas):
                told = measure(Path(folder), url, nodes, names, count, concurrency, replicas)
                print(row(label, concurrency, told, nodes), flush=True)


RUNS: list[tuple[str, str, int, dict[str, str]]] = [
    ("one", "one", CONCURRENCY, {}),
    ("one, alone", "one", 1, {}),
    ("one, fsync always", "one", CONCURRENCY, {"appendfsync": "always"}),
    ("one, 1,000", "one", 1_000, {}),
    ("three", "cluster", CONCURRENCY, {}),
    ("three, 1,000", "cluster", 1_000, {}),
    ("one and its replica", "pair", CONCURRENCY, {}),
    ("one that waits for it", "waiting", CONCURRENCY, {}),
    ("one that waits, alone", "waiting", 1, {}),
]
HEAD = "client us | per_s | p50 ms | p99 ms | memory B | kept B | file B | in B | replicated B |"


@contextmanager
def servers(folder: Path, kind: str, **options: str) -> Iterator[tuple[str, list[Node], int]]:
    """The address, the servers that are written to, and the replicas that are waited for."""
    if kind == "cluster":
        cluster = Cluster(folder)
        try:
            cluster.start()
            yield cluster.url, cluster.masters, 0
        finally:
            cluster.stop()
        return
    shared = {"save": "", "appendonly": "yes", "repl-diskless-sync-delay": "0", **options}
    ports = free_ports(2 if kind in ("pair", "waiting") else 1)
    nodes = [Node(port, folder / str(port), shared) for port in ports]
    try:
        nodes[0].start()
        for replica in nodes[1:]:
            replica.start("--replicaof", f"127.0.0.1 {nodes[0].port}")
            until(lambda: _replicas(nodes[0]) == 1, "the replica follows")
        yield f"redis://127.0.0.1:{nodes[0].port}", nodes[:1], int(kind == "waiting")
    finally:
        for node in nodes:
            if node.process is not None:
                node.kill()


def _replicas(node: Node) -> int:
    with node.client() as client:
        return int(client.info("replication")["connected_slaves"])


def measure(
    folder: Path,
    url: str,
    nodes: list[Node],
    policies: list[str],
    count: int,
    concurrency: int,
    replicas: int,
) -> Figures:
    """Of one decision with its reward."""
    config = folder / "pointsman.toml"
    config.write_text(configuration(ARMS))
    made = driving.originals(url, config)
    driving.drive(url, policies, made, min(WARM, count), concurrency, replicas)
    driving.follow(url, policies)
    before = driving.spent(nodes)
    told = driving.drive(url, policies, made, count, concurrency, replicas)
    after = driving.spent(nodes)
    driving.follow(url, policies)
    followed = driving.spent(nodes)
    for name in before[0]:
        told[name] = _more(before, after, name) / count
    told["follow_s"] = _more(after, followed, "cpu_s") / count
    told["kept_bytes"] = _more(before, followed, "memory_bytes") / count
    return told


def _more(before: list[Figures], after: list[Figures], name: str) -> float:
    return sum(then[name] - first[name] for first, then in zip(before, after, strict=True))


def row(label: str, concurrency: int, told: Figures, nodes: list[Node]) -> str:
    cpu_us = 1e6 * told["cpu_s"]
    words = [label, concurrency, f"{cpu_us:.1f}", f"{1e6 / cpu_us:,.0f}"]
    words += [f"{1e6 * told['follow_s']:.1f}", f"{told['client_us']:.0f}", f"{told['per_s']:,.0f}"]
    words += [f"{told['p50_ms']:.2f}", f"{told['p99_ms']:.2f}"]
    for name in ("memory_bytes", "kept_bytes", "file_bytes", "in_bytes", "replicated_bytes"):
        words.append(f"{told[name]:,.0f}")
    return "| " + " | ".join(map(str, words)) + " |"


if __name__ == "__main__":
    main()
