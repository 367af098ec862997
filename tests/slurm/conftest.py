"""One testbed, and one undisturbed run of the tiny cohort on it, for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cohort import CONFIG, Study
from house import House
from testbed import Cluster, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(f"no Slurm can be started here ({reason})")
    # Munge refuses a socket below folders that others may write to.
    bed = Cluster(Path("/run/shazam-slurm-test"))
    bed.start()
    try:
        yield bed
    finally:
        bed.stop()


@pytest.fixture(scope="session")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The tiny cohort, run undisturbed from slides to report through Slurm."""
    study = Study(House.build(tmp_path_factory.mktemp("slurm") / "run", CONFIG))
    print(f"\nundisturbed: {study.run():.0f} s, {study.attempts(0)}")
    return study


@pytest.fixture
def study(whole: Study, tmp_path: Path) -> Iterator[Study]:
    """A copy of the undisturbed run in which one teacher has not been run yet."""
    copy = Study(whole.house.copy(tmp_path / "run"))
    copy.forget("features/vit_tiny/*.h5")
    copy.forget("features/vit_tiny/manifest/*.json")
    return copy
