"""A scripted service for each test, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pointsman_client import Client
from tests.pointsman_client.scripted import Service


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.stop()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client
