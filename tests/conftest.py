"""How the tests are shared out where several workers run them (`pytest -n`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

# Folders whose files share what is costly to make: a full run, a process with everything imported.
TOGETHER = {
    "tests/external/": "tests/prediction/",  # the cohort that an external one is of is the same
    **{f"tests/{room}/": room for room in ("faults", "report", "slurm", "workflow")},
    "tests/prediction/": "tests/prediction/",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """A file's tests go to one worker, so that what they share is made once.

    xdist's own `loadgroup` does nothing under pytest 9.2, where a test's id cannot be changed.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((TOGETHER[folder] for folder in TOGETHER if file.startswith(folder)), file)

    return ByFile(config, log)
