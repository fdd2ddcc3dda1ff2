"""What all tests share: GPU tests are skipped where there is no GPU, and Ctrl-C means something."""

from __future__ import annotations

import signal
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.helpers")  # their failures show values too


# benchmarks/gpu.sh runs the tests marked `cuda` where only pytest is installed.
with suppress(ModuleNotFoundError):
    from hypothesis import settings

    # A busy machine may take any time for an example: tests are never timed.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


def pytest_configure() -> None:
    """Let Ctrl-C work here and in what tests start: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run tests marked `cuda` on a GPU, or on an emulated one where there is none."""
    if request.node.get_closest_marker("cuda") is None:
        yield
        return
    import torch

    if torch.cuda.is_available():
        yield
        return
    from tests.emulated_cuda.install import emulated_cuda

    with emulated_cuda():
        yield


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack small data sets in every layout of the benchmarks, with expected.json."""
    folder = tmp_path_factory.mktemp("layouts")
    archive = Path(__file__).parent / "golden" / "evaluate" / "layouts.tar.xz"
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder
