"""With keys: every operation of the document, without one, with each scope, and with one of another
policy. Checked by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
import schemathesis
from hypothesis import Phase, settings

from serving.access.scopes import OF_PATHS, SCOPES
from tests.servers import CONFIG, http_service, settings_for
from tests.serving.access.making import TWO, bearing, make_key
from tests.test_schema import NOT_PROMISED, bounded, operations

few = settings(bounded, max_examples=3, phases=(Phase.generate,))  # not each edge of each schema


class Keyed(NamedTuple):
    """A service, and headers by what they are good for."""

    url: str
    by_scope: dict[str, dict[str, str]]
    of_other: dict[str, str]  # all scopes, for one policy


@pytest.fixture(scope="module")
def keyed(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    by_scope = {scope: bearing(make_key(module_url, [scope])[1]) for scope in SCOPES}
    other = bearing(make_key(module_url, SCOPES, ("other",))[1])
    with http_service(
        settings_for(module_url, tmp_path_factory.mktemp("keyed"), CONFIG + TWO)
    ) as http:
        yield Keyed(str(http.base_url), by_scope, other)


@operations(*schemathesis.GenerationMode).parametrize()
@few
def test_a_key_opens_what_its_scope_is_for(case: schemathesis.Case, keyed: Keyed):
    """401 without, 403 with another scope, whatever is sent; with the right one what the document
    says; and one that is for another policy is no 5xx either."""
    needed = OF_PATHS[case.operation.path]
    if needed is not None:
        refused = {"": {}, "x": {"Authorization": "Bearer pm_x"}, **keyed.by_scope}
        del refused[needed]
        for scope, headers in refused.items():
            answer = case.call(base_url=keyed.url, headers=headers)
            assert answer.status_code == (403 if scope in SCOPES else 401)
            assert answer.headers["content-type"] == ["application/problem+json"]
    for headers in (keyed.by_scope[needed or "read"], keyed.of_other):
        answer = case.call(base_url=keyed.url, headers=headers)
        case.validate_response(answer, excluded_checks=NOT_PROMISED)
        assert answer.status_code != 401


def test_a_path_without_a_scope_is_not_there(keyed: Keyed):
    """Whatever key comes with it."""
    for headers in ({}, *keyed.by_scope.values()):
        assert httpx.get(f"{keyed.url}/debug", headers=headers).status_code == 404
