"""Puts the emulated GPUs into torch, and takes them out again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.emulated_cuda import shapes, tensors
from tests.emulated_cuda.machine import GraphRecord, Machine, Order, Stream
from tests.emulated_cuda.operators import add_operators
from tests.emulated_cuda.tensors import EmulatedMode, EmulatedTensor, is_gpu, move, named, pin

_FROM_DATA = (torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.asarray)


class DeviceNames(TorchFunctionMode):
    """Rewrites calls that torch's C++ side would refuse in a CPU build."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        values = dict(kwargs or {})
        if func is torch.device:
            return func(*args, **values)
        if self._machine.shapes_only and args and isinstance(args[0], EmulatedTensor):
            if func is torch.nn.functional.scaled_dot_product_attention:
                return shapes.attention(*args, **values)
            if func is torch.nn.functional.rms_norm:
                return shapes.rms_norm(*args, **values)
        if func is Tensor.cuda:
            device = args[1] if len(args) > 1 else values.pop("device", None)
            device = "cuda" if device is None else device
            if isinstance(device, int):
                device = torch.device("cuda", device)
            return move(args[0], device, **values)
        if func is Tensor.to:
            return move(*args, **values)
        if func is Tensor.pin_memory:
            return pin(self._machine, args[0].clone())
        if func is Tensor.record_stream:
            args[0].memory.users.append((args[1].queue, 0))
            return None
        if func is Tensor.is_pinned:
            return args[0].untyped_storage().data_ptr() in self._machine.pinned
        if func is torch.nn.functional.rms_norm and args[0].is_cuda:
            # One kernel on a GPU; a CPU build takes it apart.
            return torch.ops.emulated_cuda.rms_norm(args[0], **values)
        if any(isinstance(each, str | torch.device) for each in args):
            args = tuple(named(each) for each in args)
        if "device" in values:
            values["device"] = named(values["device"])
        if func in _FROM_DATA and is_gpu(values.get("device")):
            device = values.pop("device")
            return func(*args, **values).to(device)
        return func(*args, **values)


@contextmanager
def emulated_cuda(
    *,
    kind: str = "cuda",
    devices: int = 1,
    total_bytes: int = 16 << 30,
    order: Order = Order.NOW,
    seed: int = 0,
    poisons: bool = True,
    shapes_only: bool = False,
) -> Iterator[Machine]:
    """Emulate GPUs in the body, in this thread and in those that it starts.

    kind         torch's name of them: "cuda", "xpu" (Intel's) or "mps" (Apple's). They have the
                 same rules here, and what torch's module of that name has.
    shapes_only  large tensors have no memory and no numbers, see shapes.py
    """
    machine = Machine(
        kind=kind,
        devices=devices,
        total_bytes=total_bytes,
        order=order,
        seed=seed,
        poisons=poisons and not shapes_only,
        shapes_only=shapes_only,
    )
    add_operators()
    _add_kernels()  # bitsandbytes must be imported before torch seems to have CUDA
    shapes.fused_rule()
    with ExitStack() as stack:
        if kind == "mps":
            for module, replacements in _apple(machine):
                for name, value in replacements.items():
                    stack.enter_context(patch.object(module, name, value))
        else:
            module = getattr(torch, kind)
            for name, value in _replacements(machine).items():
                stack.enter_context(patch.object(module, name, value, create=True))
            stack.enter_context(patch.object(torch.version, kind, "emulated"))
        stack.enter_context(patch.object(torch, "Generator", _generator))
        stack.enter_context(patch.object(threading.Thread, "run", _run_with(machine)))
        tensors._MACHINES.append(machine)
        stack.callback(tensors._MACHINES.remove, machine)
        stack.enter_context(DeviceNames(machine))
        stack.enter_context(EmulatedMode(machine))
        yield machine
        machine.finish()


_original_run = threading.Thread.run


def _run_with(machine: Machine) -> Callable[[threading.Thread], None]:
    def run(thread: threading.Thread) -> None:
        with DeviceNames(machine), EmulatedMode(machine):
            _original_run(thread)

    return run


_CpuGenerator = torch.Generator


def _generator(device: Any = None) -> torch.Generator:
    return _CpuGenerator()


_kernels: list[torch.library.Library] = []


def _add_kernels() -> None:
    """Add the operators that bitsandbytes has for GPUs only."""
    if not _kernels:
        import bitsandbytes  # noqa: F401 - defines the operators

        library = torch.library.Library("bitsandbytes", "IMPL")
        library.impl("dequantize_4bit.out", _dequantize_into, "CPU")
        library.impl("dequantize_blockwise.out", _look_up_into, "CPU")
        _kernels.append(library)


def _dequantize_into(
    codes: Tensor,
    absmax: Tensor,
    group: int,
    quant_type: str,
    shape: list[int],
    dtype: torch.dtype,
    out: Tensor,
) -> None:
    from cogvlm2_lite.weights.kernels.nf4 import FP4_LEVELS, NF4_LEVELS, dequantize_reference

    levels = torch.tensor(FP4_LEVELS if quant_type == "fp4" else NF4_LEVELS)
    dequantize_reference(codes.reshape(-1), absmax, levels=levels, group=group, out=out)


def _look_up_into(
    codes: Tensor, absmax: Tensor, values: Tensor, group: int, dtype: torch.dtype, out: Tensor
) -> None:
    found = values.to(dtype)[codes.reshape(-1).long()]
    out.copy_(found * absmax.to(dtype).repeat_interleave(group)[: codes.numel()])


# --- torch.cuda -----------------------------------------------------------------------------------


def _replacements(machine: Machine) -> dict[str, Any]:
    """Return what the product uses of torch.cuda, by name."""

    def index(device: Any = None) -> int:
        if device is None:
            return machine.device
        if isinstance(device, int):
            return device
        found = torch.device(device).index
        return machine.device if found is None else found

    def properties(device: Any = None) -> SimpleNamespace:
        return SimpleNamespace(
            name="Emulated GPU",
            major=8,
            minor=9,
            total_memory=machine.total_bytes,
            multi_processor_count=24,
            L2_cache_size=24 << 20,
            has_bfloat16_conversions=True,
        )

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        i = index(device)
        return machine.total_bytes - machine.foreign_bytes[i] - machine.held[i], machine.total_bytes

    def reset_peak(device: Any = None) -> None:
        machine.peak[index(device)] = machine.held[index(device)]

    def synchronize(device: Any = None) -> None:
        machine.sync("torch.cuda.synchronize", explicit=True)
        machine.finish()

    @contextmanager
    def on_device(device: Any) -> Iterator[None]:
        before, machine.device = machine.device, index(device)
        try:
            yield
        finally:
            machine.device = before

    class EmulatedStream:
        def __init__(self, device: Any = None, queue: Stream | None = None, **_: Any) -> None:
            self.queue = queue or machine.pooled_stream(index(device))
            self._context: Any = None

        def synchronize(self) -> None:
            machine.sync("stream.synchronize", explicit=True)
            self.queue.finish()

        def query(self) -> bool:
            return not self.queue.waiting

        def wait_event(self, event: EmulatedEvent) -> None:
            event.wait(self)

        def wait_stream(self, other: EmulatedStream) -> None:
            first, mark = other.queue, other.queue.queued
            self.queue.push(lambda: first.run_to(mark))

        def record_event(self, event: EmulatedEvent | None = None) -> EmulatedEvent:
            event = event or EmulatedEvent()
            event.record(self)
            return event

    class EmulatedEvent:
        def __init__(self, *_: Any, **__: Any) -> None:
            self._at: tuple[Stream, int] | None = None

        def record(self, stream: EmulatedStream | None = None) -> None:
            queue = machine.stream() if stream is None else stream.queue
            self._at = (queue, queue.queued)

        def synchronize(self) -> None:
            machine.sync("event.synchronize", explicit=True)
            if self._at is not None:
                self._at[0].run_to(self._at[1])

        def query(self) -> bool:
            return self._at is None or self._at[0].done >= self._at[1]

        def wait(self, stream: EmulatedStream | None = None) -> None:
            if self._at is not None:
                first, mark = self._at
                queue = machine.stream() if stream is None else stream.queue
                queue.push(lambda: first.run_to(mark))

        def elapsed_time(self, other: EmulatedEvent) -> float:
            return 1.0

    class EmulatedGraph:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.record = GraphRecord()

        def replay(self) -> None:
            machine.replay(self.record, machine.device)

        def pool(self) -> int:
            return self.record.pool

        def reset(self) -> None:
            self.record = GraphRecord()

    @contextmanager
    def graph(
        target: EmulatedGraph,
        pool: Any = None,
        stream: EmulatedStream | None = None,
        capture_error_mode: str = "global",
    ) -> Iterator[None]:
        queue = machine.new_stream(machine.device) if stream is None else stream.queue
        machine.trace.empty_cache()
        with machine.capture(target.record, queue, pool):
            yield

    class StreamContext:
        """May be entered again and again, as torch's."""

        def __init__(self, stream: EmulatedStream) -> None:
            self._queue = stream.queue
            self._entered: list[Any] = []

        def __enter__(self) -> None:
            self._entered.append(machine.on_stream(self._queue))
            self._entered[-1].__enter__()

        def __exit__(self, *error: Any) -> None:
            self._entered.pop().__exit__(*error)

    def current_stream(device: Any = None) -> EmulatedStream:
        return EmulatedStream(queue=machine.stream(index(device)))

    def set_sync_debug_mode(mode: str) -> None:
        machine.sync_mode = mode

    def limit_memory(fraction: float, device: Any = None) -> None:
        machine.limits[index(device)] = int(fraction * machine.total_bytes)

    def held(device: Any = None) -> int:
        return machine.held[index(device)]

    def peak(device: Any = None) -> int:
        return machine.peak[index(device)]

    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: machine.devices,
        "current_device": lambda: machine.device,
        "get_device_properties": properties,
        "get_device_name": lambda device=None: "Emulated GPU",
        "get_device_capability": lambda device=None: (8, 9),
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_89"],
        "is_bf16_supported": lambda including_emulation=True: True,
        "mem_get_info": mem_get_info,
        "memory_allocated": held,
        "memory_reserved": held,
        "max_memory_allocated": peak,
        "max_memory_reserved": peak,
        "reset_peak_memory_stats": reset_peak,
        "empty_cache": machine.trace.empty_cache,
        "set_per_process_memory_fraction": limit_memory,
        "synchronize": synchronize,
        "device": on_device,
        "stream": StreamContext,
        "current_stream": current_stream,
        "Stream": EmulatedStream,
        "Event": EmulatedEvent,
        "CUDAGraph": EmulatedGraph,
        "graph": graph,
        "set_sync_debug_mode": set_sync_debug_mode,
    }


def _apple(machine: Machine) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield what the product uses of torch.mps and torch.backends.mps: no streams, no events."""

    def synchronize() -> None:
        machine.sync("torch.mps.synchronize", explicit=True)
        machine.finish()

    yield (
        torch.mps,
        {
            "recommended_max_memory": lambda: machine.total_bytes,
            "current_allocated_memory": lambda: machine.held[0],
            "empty_cache": lambda: None,
            "synchronize": synchronize,
        },
    )
    yield (
        torch.backends.mps,
        {
            "is_built": lambda: True,
            "is_available": lambda: True,
            "is_macos_or_newer": lambda major, minor: True,
            "get_name": lambda: "Emulated GPU",
            "get_core_count": lambda: 8,
        },
    )
