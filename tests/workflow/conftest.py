"""One full run of the tiny cohort for all workflow tests."""

from __future__ import annotations

import pytest
from house import TINY, House


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the full run go to one worker, so that there is one full run."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("full run"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> House:
    """The tiny cohort, run from start to report."""
    house = House.build(tmp_path_factory.mktemp("house") / "run", TINY)
    house.run("--cores", "2")
    return house


@pytest.fixture
def house(finished: House, tmp_path_factory: pytest.TempPathFactory) -> House:
    """A copy of the finished run, to change and plan again."""
    return finished.copy(tmp_path_factory.mktemp("copy") / "run")
