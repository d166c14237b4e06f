"""What all tests share: their settings, their order, and one finished run of the workflow."""

import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from workflow_for_tests import TINY, checkout, run

settings.register_profile("bsnn", deadline=None)  # what a loaded machine takes says nothing about the code
settings.load_profile("bsnn")

# A shell without job control starts what it puts into the background with SIGINT ignored, and so all processes below;
# tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run the whole workflow come first: a long one that begins last would run alone at the end."""
    items.sort(key=lambda item: not item.path.name.startswith("test_workflow"))


@pytest.fixture(scope="session")
def finished_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose pipeline ran to its end; made once for all processes that run tests, and not to be changed."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, ended = shared / "finished-tiny", shared / "finished-tiny.ended"
    with FileLock(shared / "finished-tiny.lock"):
        if not ended.exists():
            run(checkout(folder, TINY))
            ended.touch()
    return folder
