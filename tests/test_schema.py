"""The service does what its OpenAPI document says, whatever is sent: checked by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serving.app import create_app
from serving.settings import Settings
from tests.servers import http_service, settings_for

# Building the application opens nothing, so the operations are known before a server runs.
DOCUMENT = create_app(Settings(redis_url="unused")).openapi()

# Rules across fields ("give a query, hints or both") and an empty action set are honest 422s that
# a JSON schema doesn't express.
NOT_PROMISED = [positive_data_acceptance]

bounded = settings(
    max_examples=30,  # per operation; those at the edges of each schema come on top
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def operations(*modes: schemathesis.GenerationMode) -> Any:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.generation.update(modes=list(modes))
    return schema


@pytest.fixture(scope="module")
def service(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One service for all examples."""
    with http_service(settings_for(module_url, tmp_path_factory.mktemp("schema"))) as client:
        yield client


@operations(*schemathesis.GenerationMode).parametrize()
@bounded
def test_answers_conform_to_the_document(case: schemathesis.Case, service: httpx.Client):
    """Status, content type, headers and body are documented ones, and never a 5xx."""
    case.call_and_validate(base_url=str(service.base_url), excluded_checks=NOT_PROMISED)


@(
    operations(schemathesis.GenerationMode.POSITIVE)
    .include(path=["/reward", "/correction", "/decisions/{decision_id}", "/policies/{name}"])
    .parametrize()
)
@bounded
def test_answers_about_what_exists_conform_as_well(case: schemathesis.Case, service: httpx.Client):
    """Names made up at random exist nowhere: these requests name a real decision and policy."""
    made = service.post("/route", json={"query": {"text": "hello"}})
    assert made.status_code == 200, made.text
    real = {"decision_id": made.json()["decision_id"], "policy": "default", "name": "default"}
    for given in (case.body, case.path_parameters, case.query):
        if isinstance(given, dict):
            given.update({name: real[name] for name in given.keys() & real.keys()})
    case.call_and_validate(base_url=str(service.base_url), excluded_checks=NOT_PROMISED)
