"""What POINTSMAN_REDIS_URL says, read without reaching anything."""

from __future__ import annotations

import pytest

from serving.store.connecting.address import Address


def test_one_server_is_redis_pys_own_address():
    """With all that redis-py takes there."""
    server = Address.of("redis://me:secret@host:7000/3?socket_timeout=2")
    assert (server.kind, server.tls, server.seeds) == ("server", False, ())
    assert server.options["db"] == 3
    assert Address.of("rediss://host").tls
    assert Address.of("unix:///tmp/s").options["path"] == "/tmp/s"


def test_a_cluster_is_some_of_its_nodes():
    """Each with a port, or Redis's; credentials and options are those of each node."""
    cluster = Address.of("rediss+cluster://me:s%2Cc@a:7000,b,[::1]:7002?ssl_ca_certs=ca.pem")
    assert (cluster.kind, cluster.tls) == ("cluster", True)
    assert cluster.seeds == (("a", 7000), ("b", 6379), ("::1", 7002))
    given = {"username": "me", "password": "s,c", "ssl_ca_certs": "ca.pem"}
    assert cluster.options == given


def test_sentinels_have_a_service_and_credentials_of_their_own():
    """Those before the hosts are the servers'."""
    watched = Address.of(
        "redis+sentinel://:secret@a:5000,b/main/2?sentinel_password=other&client_name=me"
    )
    assert (watched.kind, watched.service) == ("sentinel", "main")
    assert watched.seeds == (("a", 5000), ("b", 26379))
    assert watched.options == {"password": "secret", "db": 2, "client_name": "me"}
    assert watched.sentinel_options == {"password": "other"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host/abc", "a database is a number, got 'abc'"),
        ("redis+cluster://a,b/1", "a cluster has no databases"),
        ("redis+cluster://a,,b", "one is missing"),
        ("redis+sentinel://a", "ends with the service"),
        ("redis+sentinel://a/main/x", "a database is a number, got 'x'"),
        ("redis+other://a", "are known, got redis\\+other://"),
        ("http+cluster://a", "are known, got http\\+cluster://"),
        ("http://a", "sentinel:// are known, got http://"),
    ],
)
def test_what_is_no_address_is_said(url: str, expected: str):
    """In one line, without what it holds of credentials."""
    with pytest.raises(ValueError, match=expected):
        Address.of(url)
