"""What the tests of adoption begin with: tables that the service has made, the service, treestore beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adoption import adopting
from tests.adoption.old_service.service import Service
from tests.postgres.faults import FACES, Face, opened
from tests.stores import SyncStore


@pytest.fixture
def url() -> str:
    """A database with the service's tables, empty and not adopted."""
    return adopting.old_url()


@pytest.fixture
def service(url: str) -> Iterator[Service]:
    """The service at work there."""
    with Service(url) as running:
        yield running


@pytest.fixture(params=FACES)
def store(request: pytest.FixtureRequest, url: str, service: Service) -> Iterator[SyncStore]:
    """treestore on the same tables, which ``service`` has had adopted."""
    face: Face = request.param
    with opened(url, face) as found:
        yield found
