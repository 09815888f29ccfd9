"""Fixtures and settings shared by the project's own tests."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from tests.spaces import SPACES, Space, open_space

# Derandomised, so that a run says the same today and tomorrow; without a deadline, because a
# slow machine is not a bug.
hypothesis.settings.register_profile(
    "rotary", deadline=None, derandomize=True, database=None, max_examples=100
)
hypothesis.settings.load_profile("rotary")


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> Iterator[Space]:
    """Every array namespace that the reference promises to serve."""
    with open_space(request.param) as opened:
        yield opened
