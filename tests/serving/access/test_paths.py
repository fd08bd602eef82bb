"""Every path needs a scope, those to come among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.access.scopes import OF_PATHS, SCOPES
from serving.app import create_app
from serving.settings import Settings
from tests.servers import http_service, settings_for
from tests.serving.access.making import bearing, make_key

OPEN = ["/healthz", "/readyz"]
FILLED = {"{name}": "default", "{decision_id}": "0"}


def routed(routes: Any) -> Iterator[tuple[str, set[str]]]:
    """Each path that an application routes, in the document or not, and its methods."""
    for route in routes:
        inner = getattr(route, "original_router", route)
        if hasattr(inner, "routes"):
            yield from routed(inner.routes)
        else:
            yield route.path, route.methods


ALL = sorted(
    (method, path)
    for path, methods in routed(create_app(Settings(redis_url="redis://unused")).routes)
    for method in methods
)
KEYED = [one for one in ALL if one[1] not in OPEN]


def at(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    return path


@pytest.fixture(scope="module")
def service(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with a key for each scope: `by_scope`."""
    settings = settings_for(module_url, tmp_path_factory.mktemp("paths"))
    secrets = {scope: make_key(module_url, [scope])[1] for scope in SCOPES}
    with http_service(settings) as http:
        http.by_scope = secrets  # type: ignore[attr-defined]
        yield http


def test_the_table_lists_what_is_routed_and_nothing_else():
    """A path that declares no scope is not served; one that is gone needs none."""
    assert {path for _, path in ALL} == OF_PATHS.keys()
    assert [path for path, scope in OF_PATHS.items() if scope is None] == OPEN


@pytest.mark.parametrize(("method", "path"), KEYED)
def test_without_a_key_nothing_is_answered(service: httpx.Client, method: str, path: str):
    """Neither without one nor with one that isn't known; the answer says what is wanted."""
    for headers in ({}, bearing("pm_" + "a" * 43), bearing("x"), {"Authorization": "Bearer"}):
        answer = service.request(method, at(path), headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path"), KEYED)
def test_a_key_without_the_scope_is_told_which_it_lacks(
    service: httpx.Client, method: str, path: str
):
    """Each scope opens its own paths and no others."""
    wanted = OF_PATHS[path]
    for scope, secret in service.by_scope.items():  # type: ignore[attr-defined]
        answer = service.request(method, at(path), headers=bearing(secret))
        if scope == wanted:
            assert answer.status_code not in (401, 403)
        else:
            assert answer.status_code == 403
            assert method == "HEAD" or answer.json()["scope"] == wanted


@pytest.mark.parametrize("path", OPEN)
def test_probes_need_no_key(service: httpx.Client, path: str):
    """What watches a service holds no secret."""
    assert service.get(path).status_code == 200
