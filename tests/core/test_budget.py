"""Budgets come from what is free now, within containers' limits, or from what the user allows."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogvlm2_lite.backends.cuda import CudaBackend
from cogvlm2_lite.backends.registry import replaced
from cogvlm2_lite.devices import choose_gpus
from cogvlm2_lite.errors import DeviceError, UsageError
from cogvlm2_lite.memory.budget import (
    Allowance,
    assumed_budgets,
    check_context,
    cpu_budget,
    free_disk_bytes,
    free_ram_bytes,
    gpu_budgets,
    read_allowance,
    useful_devices,
)
from cogvlm2_lite.memory.inventory import sizes_of_quantized
from cogvlm2_lite.memory.plan import RESERVE_BYTES, DeviceBudget, Workload
from cogvlm2_lite.units import GIB, MIB
from tests.helpers.fake_backends import FakeCuda, gpu
from tests.helpers.fake_torch import Cuda, OldDriver, fake_torch
from tests.helpers.shapes import REAL

CARD = gpu("RTX 4060", free_bytes=7 * GIB, total_bytes=8 * GIB)
BIG = gpu("RTX 4090", index=1, free_bytes=20 * GIB, total_bytes=24 * GIB)


def computer(root: Path, cgroup: str, files: Mapping[str, object]) -> Path:
    """Write the files that the kernel would show."""
    texts = {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(available=100 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def test_without_control_groups_the_system_is_believed(tmp_path: Path) -> None:
    assert free_ram_bytes(tmp_path) == 100 * GIB


def test_the_limit_of_a_version_2_group_counts_without_cached_pages(tmp_path: Path) -> None:
    files = {
        "memory.max": 8 * GIB,
        "memory.current": 7 * GIB,
        "memory.stat": f"anon {GIB}\ninactive_file {4 * GIB}\nactive_file {2 * GIB}",
    }
    assert free_ram_bytes(computer(tmp_path, "0::/", files)) == 7 * GIB


def test_the_process_own_group_and_its_parents_all_bind(tmp_path: Path) -> None:
    files = {
        "memory.max": "max",
        "memory.current": 9 * GIB,
        "user.slice/memory.max": 4 * GIB,
        "user.slice/memory.current": 3 * GIB,
        "user.slice/my job/memory.max": 2 * GIB,
        "user.slice/my job/memory.current": GIB // 2,
    }
    root = computer(tmp_path, "0::/user.slice/my job", files)
    assert free_ram_bytes(root) == GIB


def test_version_1_groups_are_read_where_memory_is_mounted(tmp_path: Path) -> None:
    cgroup = "5:devices:/x\n4:memory:/docker/abc\n0::/"
    files = {
        "memory/memory.limit_in_bytes": 2**63 - 4096,
        "memory/memory.usage_in_bytes": 9 * GIB,
        "memory/docker/abc/memory.limit_in_bytes": 6 * GIB,
        "memory/docker/abc/memory.usage_in_bytes": 5 * GIB,
        "memory/docker/abc/memory.stat": f"inactive_file 1\ntotal_inactive_file {3 * GIB}",
    }
    assert free_ram_bytes(computer(tmp_path, cgroup, files)) == 4 * GIB


def test_a_path_outside_of_the_container_falls_back_to_the_mount(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": 3 * GIB, "memory/memory.usage_in_bytes": GIB}
    root = computer(tmp_path, "4:memory:/docker/not-visible-here", files)
    assert free_ram_bytes(root) == 2 * GIB


def test_damaged_kernel_files_bind_nothing(tmp_path: Path) -> None:
    files = {"memory.max": "?", "memory.current": "", "memory.stat": "a b c\nactive_file x"}
    assert free_ram_bytes(computer(tmp_path, "0::/", files)) == 100 * GIB


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    files = {"memory.max": GIB, "memory.current": 2 * GIB}
    assert free_ram_bytes(computer(tmp_path, "0::/", files)) == 0


def test_the_real_computer_has_some_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 < free_ram_bytes() < 1 << 50


def test_free_disk_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    free = free_disk_bytes(tmp_path / "not" / "yet" / "there")
    assert free is not None
    assert free > 0


def test_what_is_free_less_the_reserve_is_the_budget() -> None:
    (found,) = gpu_budgets([CARD], Allowance(), 32 * GIB)
    assert found.device == "cuda:0"
    assert found.device_bytes == 7 * GIB - RESERVE_BYTES
    assert found.host_bytes == 32 * GIB - RESERVE_BYTES
    assert "7.00 GiB free now, 384 MiB left" in found.origin
    assert found.remark == ""
    alone = cpu_budget(Allowance(), 16 * GIB)
    assert alone.device_bytes == 16 * GIB - RESERVE_BYTES
    assert alone.host_bytes == 0
    assert "driver" not in alone.origin


def test_a_smaller_size_given_by_the_user_is_the_budget() -> None:
    (found,) = gpu_budgets([CARD], Allowance(vram=(4 * GIB,), ram=10 * GIB), 32 * GIB)
    assert found.device_bytes == 4 * GIB - RESERVE_BYTES
    assert found.host_bytes == 10 * GIB - RESERVE_BYTES
    assert "4.00 GiB given" in found.origin


def test_more_than_the_card_has_is_answered_with_what_is_free() -> None:
    (found,) = gpu_budgets([CARD], Allowance(vram=(30 * GIB,)), 32 * GIB)
    assert found.device_bytes == 7 * GIB - RESERVE_BYTES
    assert found.remark == (
        "30.0 GiB is allowed, but only 7.00 GiB is free on cuda:0 (RTX 4060, 8.00 GiB); "
        "the plan uses what is free."
    )
    assert "16.0 GiB is free" in cpu_budget(Allowance(ram=99 * GIB), 16 * GIB).remark


def test_an_imagined_computer_may_have_more_than_this_one() -> None:
    more = Allowance(ram=64 * GIB)
    assert cpu_budget(more, GIB, assumed=True).device_bytes == 64 * GIB - RESERVE_BYTES
    (card,) = assumed_budgets([80 * GIB], more, GIB)
    assert card.device_bytes == 80 * GIB - RESERVE_BYTES
    assert card.host_bytes == 64 * GIB - RESERVE_BYTES


def test_several_gpus_share_the_ram_and_take_one_size_or_one_each() -> None:
    two = gpu_budgets([BIG, CARD], Allowance(vram=(5 * GIB,)), 32 * GIB)
    assert [b.device_bytes for b in two] == [5 * GIB - RESERVE_BYTES] * 2
    assert sum(b.host_bytes for b in two) <= 32 * GIB
    each = gpu_budgets([BIG, CARD], Allowance(vram=(9 * GIB, 5 * GIB)), 32 * GIB)
    assert [b.device_bytes + RESERVE_BYTES for b in each] == [9 * GIB, 5 * GIB]
    with pytest.raises(UsageError, match=r"2 sizes, but the number of usable GPUs is 1"):
        gpu_budgets([BIG], Allowance(vram=(9 * GIB, 5 * GIB)), 32 * GIB)


def test_sizes_are_read_from_the_command_line() -> None:
    assert read_allowance(None, None) == read_allowance("auto", "auto") == Allowance()
    found = read_allowance("8GiB, 12GB", 2 * GIB)
    assert found == Allowance(vram=(8 * GIB, 12 * 10**9), ram=2 * GIB)
    assert read_allowance(5 * GIB, "1.5g").vram == (5 * GIB,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8G B", "'8G B' is not a size for --vram"),
        ("-8GiB", "'-8GiB' is not a size"),
        ("-1", "'-1' is not a size"),
        ("", "'' is not a size"),
        (",", "',' is not a size"),
        ("8GiB;9GiB", "is not a size"),
        ("nan", "is not a size"),
        ("0", "0 B for --vram is too small"),
        ("8", "8 B for --vram is too small"),
        ("100KiB", "100 KiB for --vram is too small"),
        ("9999999GiB", "more than any computer has"),
        (f"{'9' * 400}GiB", "is not a size"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_allowance(text, None)
    assert message in caught.value.message
    assert "8GiB" in caught.value.hint


def test_a_forgotten_unit_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        read_allowance(None, "16")
    assert "16 B for --ram" in caught.value.message
    assert caught.value.hint.startswith("Did you mean 16GiB?")


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        found = read_allowance(text, text)
    except UsageError:
        return
    assert text == "auto" or all(n >= MIB for n in found.vram or ())


def test_one_gpu_that_suffices_is_taken_alone() -> None:
    sizes, work = sizes_of_quantized(REAL), Workload(context=8192)

    def take(*gib: float) -> list[int]:
        budgets = [
            DeviceBudget(device=f"gpu:{i}", device_bytes=int(n * GIB)) for i, n in enumerate(gib)
        ]
        return [int(b.device[4:]) for b in useful_devices(REAL, sizes, budgets, work)]

    assert take(24, 16) == [0]
    assert take(8, 8) == [0, 1]
    assert take(8, 8, 8) == [0, 1]  # two hold it all
    assert take(4, 3) == [0, 1]  # both stream, and together less
    assert take(8, 0.1) == [0]  # the second can't even hold its buffers
    assert take(0.1) == [0]  # for plan_memory to refuse, with its reasons


def test_a_context_is_checked_against_the_model() -> None:
    assert check_context(REAL, None) == 8192
    assert check_context(REAL, 100) == 100
    for wrong in (0, -1, 8193):
        with pytest.raises(UsageError, match=f"context of {wrong} tokens"):
            check_context(REAL, wrong)


def test_gpus_come_in_the_order_of_their_free_memory() -> None:
    old = ("GTX 1060", (6, 1), 6 * GIB, 6 * GIB, 0, 0)
    first = ("RTX 4060", (8, 9), 7 * GIB, 8 * GIB, 0, 0)
    second = ("RTX 3090", (8, 6), 20 * GIB, 24 * GIB, 3 * GIB, GIB)
    gpus, trouble = CudaBackend(fake_torch(Cuda(first, old, "CUDA error: lost", second))).find()
    assert [gpu.device for gpu in gpus] == ["cuda:3", "cuda:0"]
    # What this process holds back for later is free for it.
    assert gpus[0].free_bytes == 22 * GIB
    assert trouble == (
        "cuda:1 (GTX 1060) has compute capability 6.1, but this torch needs 7.5 or more; "
        "cuda:2 does not respond: CUDA error: lost"
    )


def test_an_old_driver_is_explained_in_one_sentence() -> None:
    gpus, trouble = CudaBackend(fake_torch(OldDriver())).find()
    assert gpus == ()
    assert trouble == "The NVIDIA driver on your system is too old (found version 11040)"
    assert (
        CudaBackend(fake_torch(Cuda())).find()[1] == "torch is built for CUDA 13.0 and finds no GPU"
    )
    assert CudaBackend(fake_torch(Cuda(), built=None)).find()[1] == "torch is a CPU build"


@pytest.fixture
def with_gpus() -> Iterator[None]:
    with replaced(FakeCuda(BIG, CARD, trouble="cuda:2 is lost")):
        yield


@pytest.mark.usefixtures("with_gpus")
def test_a_device_word_picks_gpus() -> None:
    assert choose_gpus("cpu") == ((), "")
    assert choose_gpus("auto") == choose_gpus("cuda") == ((BIG, CARD), "cuda:2 is lost")
    assert choose_gpus("cuda:0") == ((CARD,), "")
    with pytest.raises(DeviceError, match=r"cuda:2 can't be used \(cuda:2 is lost\)") as caught:
        choose_gpus("cuda:2")
    assert caught.value.hint == "Available GPUs: cuda:0, cuda:1."


@pytest.mark.parametrize("word", ["gpu", "cuda:x", "cuda:-1", "cpu:1", "auto:0", ""])
def test_a_word_that_is_no_device_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="Unknown device"):
        choose_gpus(word)


def test_a_gpu_that_is_asked_for_and_missing_is_an_error() -> None:
    with replaced(FakeCuda(trouble="torch is a CPU build", driver=False)):
        # Without a driver nobody expects a GPU, so auto says nothing.
        assert choose_gpus("auto") == ((), "")
        with pytest.raises(DeviceError, match="No NVIDIA GPU can be used") as caught:
            choose_gpus("cuda")
    assert "--device cpu" in caught.value.hint


@pytest.mark.skipif(os.name == "nt", reason="the driver's library has another name there")
def test_a_missing_driver_is_found_missing_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from cogvlm2_lite.backends import cuda

    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(cuda, "Path", lambda name: SimpleNamespace(exists=lambda: False))
    assert not CudaBackend().has_driver()
