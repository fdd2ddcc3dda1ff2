"""The emulated GPU refuses what CUDA refuses, and runs work as late as CUDA may."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Machine, Order, RuleError


@pytest.fixture
def late() -> Iterator[Machine]:
    with emulated_cuda(devices=2, order=Order.LATE) as machine:
        yield machine


def values(*numbers: float, device: str = "cuda") -> Tensor:
    return torch.tensor(numbers, device=device)


def test_tensors_say_where_they_are(late: Machine) -> None:
    x = values(1, 2)
    assert x.device == torch.device("cuda:0")
    assert x.is_cuda
    assert not x.is_cpu
    assert x[1:].device == x.device
    assert (x + 1).device == x.device
    assert x.to("cuda") is x
    assert x.cuda() is x
    assert x.cpu().device == torch.device("cpu")
    assert torch.zeros_like(x).device == x.device
    assert torch.arange(3, device="cuda:1").device == torch.device("cuda:1")
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()


@pytest.mark.parametrize("order", list(Order))
def test_numbers_are_those_of_the_cpu(order: Order) -> None:
    with emulated_cuda(order=order, seed=3):
        x = torch.arange(12.0).view(3, 4)
        there = x.cuda()
        there[1:].mul_(2)
        there[0] = 7
        got = torch.nn.functional.silu(there @ there.t()).sum(0)
        here = x.clone()
        here[1:].mul_(2)
        here[0] = 7
        assert torch.equal(got.cpu(), torch.nn.functional.silu(here @ here.t()).sum(0))


def test_gradients_are_those_of_the_cpu(late: Machine) -> None:
    found = []
    for device in ("cpu", "cuda"):
        x = torch.linspace(-1, 1, 6).to(device).view(2, 3).requires_grad_()
        (torch.softmax(x, 1) * x).sum().backward()
        assert x.grad is not None
        assert x.grad.device == x.device
        found.append(x.grad.cpu())
    assert torch.equal(*found)


def test_devices_do_not_mix(late: Machine) -> None:
    x = values(1, 2)
    for other in (torch.ones(2), values(1, 2, device="cuda:1")):
        with pytest.raises(RuleError, match="tensors on cuda:"):
            x + other
    assert float((x + torch.tensor(1.0)).sum()) == 5  # a number may come from the CPU


def test_work_waits_until_something_waits_for_it(late: Machine) -> None:
    x = values(1, 2)
    x.mul_(3)
    before = late.syncs.total()
    assert x.raw.tolist() == [1, 2]  # type: ignore[attr-defined]
    assert x.tolist() == [3, 6]
    assert late.syncs.total() > before


def test_a_pinned_buffer_must_not_be_reused_before_its_copy_ran(late: Machine) -> None:
    buffer = torch.ones(2).pin_memory()
    there = torch.empty(2, device="cuda")
    there.copy_(buffer, non_blocking=True)
    buffer.fill_(9)
    assert there.tolist() == [9, 9]
    there.copy_(torch.ones(2), non_blocking=True)  # not pinned: read before the call returns
    assert there.tolist() == [1, 1]


def test_streams_do_not_wait_for_each_other(late: Machine) -> None:
    side = torch.cuda.Stream()
    x = torch.zeros(1, device="cuda")
    with torch.cuda.stream(side):
        x.add_(1)
        done = torch.cuda.Event()
        done.record(side)
    early = x.clone()
    torch.cuda.current_stream().synchronize()
    assert early.tolist() == [0]
    torch.cuda.current_stream().wait_event(done)
    assert x.tolist() == [1]


def test_freed_memory_is_overwritten_when_its_stream_goes_on(late: Machine) -> None:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        x = torch.ones(4, device="cuda")
    side.synchronize()
    y = x * 2  # queued on the default stream, not computed yet
    del x
    side.synchronize()  # the memory belongs to this stream, which may use it again now
    assert y.tolist() != [2, 2, 2, 2]


def test_memory_is_counted_and_ends() -> None:
    with emulated_cuda(total_bytes=1 << 20) as machine:
        x = torch.empty(1 << 18, dtype=torch.uint8, device="cuda")
        view = x[5:]
        assert torch.cuda.memory_allocated() == 1 << 18
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
        del x
        assert torch.cuda.mem_get_info()[0] == 3 << 18
        del view
        assert machine.held == [0]
        assert machine.peak == [1 << 18]


def test_a_graph_repeats_addresses(late: Machine) -> None:
    x, weight = values(1, 2), values(3, 3)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream):
        y = x * weight
    x.copy_(values(5, 6))
    graph.replay()
    assert y.tolist() == [15, 18]
    del weight  # its address is in the graph, which does not keep it
    torch.cuda.synchronize()
    graph.replay()
    assert y.tolist() != [15, 18]


def test_a_capture_must_not_wait(late: Machine) -> None:
    x = values(1, 2)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuleError, match="capturing"), torch.cuda.graph(graph):
        float(x.sum())
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuleError, match="synchronizing"):
        bool(x[0] > 0)


def test_threads_have_the_gpu_too(late: Machine) -> None:
    found: list[torch.device] = []
    thread = threading.Thread(target=lambda: found.append(torch.ones(2, device="cuda").device))
    thread.start()
    thread.join()
    assert found == [torch.device("cuda:0")]


def test_nothing_is_left_behind() -> None:
    with emulated_cuda():
        assert torch.cuda.is_available()
    assert not torch.cuda.is_available()
    assert torch.ones(2).device == torch.device("cpu")
