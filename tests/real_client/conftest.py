"""Fixtures of the real client."""

import os
from pathlib import Path

import pytest

from tests.real_client.claude import NEWEST, OLDEST

os.environ.pop("ANTHROPIC_API_KEY", None)


@pytest.fixture(params=[OLDEST, NEWEST])
def version(request: pytest.FixtureRequest) -> str:
    """Both ends of the range: they differ in what they repeat and how often."""
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"
