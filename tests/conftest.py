"""What all tests share: a clock that can be set, and Hypothesis without a time limit on a shared machine."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.clock import SetClock

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("shared")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the defaults, whatever the environment of who runs them says."""
    import os

    for name in [name for name in os.environ if name.startswith("TREESTORE_")]:
        monkeypatch.delenv(name)
