"""Tensors on an emulated GPU.

An EmulatedTensor wraps a CPU tensor with its numbers. Every operation of torch reaches `dispatch`
below, after autograd and after functions such as linear were taken apart; its schema says what it
reads, writes and returns a view of.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.emulated_cuda import shapes
from tests.emulated_cuda.kernels import EMPTY, PRODUCTS, count_kernels
from tests.emulated_cuda.machine import Machine, Memory, Order, RuleError
from tests.emulated_cuda.shapes import plain as _plain
from tests.emulated_cuda.trees import map_tensors, tensors_in

aten = torch.ops.aten

KINDS = ("cuda", "xpu", "mps")
"""The kinds of devices that a machine may have; one at a time."""

_INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
_POISON = {torch.uint8: 0xA5, torch.int8: 93, torch.bool: True}


class EmulatedTensor(Tensor):
    """A tensor that says it is on cuda:N.

    raw     its numbers; queued work reads and writes them
    memory  what it shares with its views
    """

    raw: Tensor
    memory: Memory

    @staticmethod
    def __new__(cls, raw: Tensor, memory: Memory) -> EmulatedTensor:
        wrapper: EmulatedTensor = Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device("cpu"),
        )
        return wrapper

    def __init__(self, raw: Tensor, memory: Memory) -> None:
        self.raw, self.memory = raw, memory

    def __repr__(self) -> str:  # type: ignore[override]
        return f"EmulatedTensor({tuple(self.shape)}, cuda:{self.memory.device})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return dispatch(_MACHINES[-1], func, args, dict(kwargs or {}))

    # What a tensor says about itself, which no operation computes. torch's own attributes are
    # those of the CPU, and what autograd calls does not go through __torch_function__.

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(_MACHINES[-1].kind, self.memory.device)

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return _MACHINES[-1].kind == "cuda"

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def get_device(self) -> int:
        return self.memory.device

    def data_ptr(self) -> int:
        return self.memory.address + int(self.storage_offset()) * self.element_size()

    def is_pinned(self, device: Any = None) -> bool:
        return False

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def tolist(self) -> Any:
        _MACHINES[-1].wait_here("tolist", self.memory.device)
        return (torch.zeros_like(self.raw, device="cpu") if self.raw.is_meta else self.raw).tolist()

    def cpu(self, memory_format: Any = None) -> Tensor:
        return move(self, "cpu")

    def cuda(self, device: Any = None, non_blocking: bool = False) -> Tensor:  # type: ignore[override]
        return move(
            self, torch.device("cuda", device) if isinstance(device, int) else device or "cuda"
        )

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        return move(self, *args, **kwargs)


_MACHINES: list[Machine] = []
"""The installed machine; there is one at a time."""


class EmulatedMode(TorchDispatchMode):
    """Catches what has no emulated tensor among its arguments: factories and copies to a GPU."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return dispatch(self._machine, func, args, dict(kwargs or {}))


def dispatch(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation as a GPU would, or on the CPU if it has nothing to do with one."""
    if machine.shapes_only:
        found = _known(machine, func, args, kwargs)
        if found is not NotImplemented:
            return found
    here = next(iter(_emulated((args, kwargs))), None)
    wanted = kwargs.get("device")
    target = None if wanted is None else _gpu_index(wanted)
    if here is None and target is None:
        return _on_cpu(machine, func, args, kwargs)
    machine.check_has(func._schema.name)
    machine.progress()
    if func in (aten.copy_.default, aten._to_copy.default):
        return _copy(machine, func, args, kwargs)
    if func is aten.record_stream.default:
        raise NotImplementedError("record_stream comes as a Python stream, see install.py")
    device = target if here is None else here.memory.device
    assert device is not None
    if target is not None and here is not None and target != here.memory.device:
        raise RuleError(f"{func}: a tensor on cuda:{here.memory.device} for cuda:{target}")
    if wanted is not None:
        kwargs["device"] = torch.device("cpu")
    kwargs.pop("pin_memory", None)
    if here is not None:  # a factory such as empty_like takes only a shape from a CPU tensor
        _check_devices(machine, func, args, kwargs, device)
    machine.launches[str(func)] += 1
    if machine.shapes_only and func is torch.ops.bitsandbytes.gemm_4bit.default:
        return shapes.gemm_4bit(*args, **kwargs)
    if _waits(func, args):
        machine.wait_here(str(func), device)
        raw_args, raw_kwargs = _raw((args, kwargs))
        if func._schema.is_mutable:
            _apply(machine, func, raw_args, raw_kwargs)
            _count(machine, device, func, args, [_written(func, args, kwargs)])
            return _written(func, args, kwargs)
        result = _wrap_new(machine, _computed(machine, func, raw_args, raw_kwargs), device)
        _count(machine, device, func, args, result)
        return result
    if func._schema.is_mutable:
        _count(machine, device, func, args, _written(func, args, kwargs))
        return _change(machine, func, args, kwargs, device)
    return _return_new(machine, func, args, kwargs, device)


class _Form(Enum):
    """What an operation does with its arguments, as far as shapes go."""

    VIEW = "view"
    WRITE = "write"
    NEW = "new"
    SPECIAL = "special"


_forms: dict[Any, _Form] = {}


def _form_of(func: Any) -> _Form:
    special = (aten.copy_.default, aten._to_copy.default, aten.record_stream.default, *_INDEXING)
    tags = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
    draws = any(argument.name == "generator" for argument in func._schema.arguments)
    if func in special or draws or any(tag in func.tags for tag in tags):
        return _Form.SPECIAL
    if func is torch.ops.bitsandbytes.gemm_4bit.default:
        return _Form.SPECIAL
    if func.is_view:
        return _Form.VIEW
    return _Form.WRITE if func._schema.is_mutable else _Form.NEW


def _known(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the result of an operation on tensors without numbers whose shape is known.

    This does the same as the rest of this file, in less time. NotImplemented: it is not known.
    """
    form = _forms.get(func)
    if form is None:
        form = _forms[func] = _form_of(func)
    if form is _Form.SPECIAL or "device" in kwargs:
        return NotImplemented
    given: list[Any] = []
    key = (func, shapes.describe(args, given), shapes.describe(kwargs, given))
    if not given:
        return NotImplemented
    for tensor in given:
        if type(tensor) is not EmulatedTensor or not tensor.raw.is_meta:
            return NotImplemented
    memory, device = given[0].memory, given[0].memory.device
    if any(tensor.memory.device != device for tensor in given):
        return NotImplemented
    if form is _Form.VIEW:
        result = _plain(func, *_raw((args, kwargs)))
        return map_tensors(lambda raw: EmulatedTensor(raw, memory), result)
    if form is _Form.WRITE:
        written = _written(func, args, kwargs)
        _count(machine, device, func, args, written)
        return written
    layouts = shapes.layouts.get(key)
    if layouts is None:
        return NotImplemented
    result = map_tensors(shapes.layout, layouts)
    _count(machine, device, func, args, result)
    return _wrap_new(machine, result, device)


def count(tensor: Tensor, what: str, kernels: int = 1) -> None:
    """Count kernels that are started on the current stream of a tensor's GPU."""
    machine = _MACHINES[-1]
    stream = machine.streams.index(machine.stream(_index_of(tensor)))
    machine.trace.work_on(stream, machine.devices).kernels[what] += kernels


def _count(machine: Machine, device: int, func: Any, args: tuple[Any, ...], written: Any) -> None:
    """Count the kernels of an operation that returns no view."""
    kernels = count_kernels(func, args, tensors_in(written))
    if kernels:
        stream = machine.streams.index(machine.stream(device))
        machine.trace.work_on(stream, machine.devices).kernels[str(func)] += kernels
        if func in PRODUCTS:
            machine.trace.multiply(stream)


def _computed(machine: Machine, func: Any, args: Any, kwargs: Any) -> Any:
    """Return the raw result of an operation that changes nothing."""
    return (shapes.compute if machine.shapes_only else _plain)(func, args, kwargs)


def _apply(machine: Machine, func: Any, args: Any, kwargs: Any) -> None:
    """Run an operation that writes into raw arguments."""
    if not machine.shapes_only or all(map(shapes.has_numbers, tensors_in((args, kwargs)))):
        _plain(func, args, kwargs)
    elif func is aten.copy_.default and shapes.has_numbers(args[0]):
        _plain(aten.zero_.default, args[:1], {})  # the stand-in for numbers that are not there


def move(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    """Return tensor.to(...): for torch's C++ side all tensors are on the CPU."""
    other = kwargs.pop("other", None)
    if args and isinstance(args[0], Tensor):
        other, args = args[0], args[1:]
    if other is not None:
        kwargs = {"device": other.device, "dtype": other.dtype, **kwargs}
    args = tuple(named(each) for each in args)
    kwargs = {name: named(value) for name, value in kwargs.items()}
    device, dtype, non_blocking, form = torch._C._nn._parse_to(*args, **kwargs)
    device, dtype = device or tensor.device, dtype or tensor.dtype
    if not copy and device == tensor.device and dtype == tensor.dtype:
        return tensor if form is None else tensor.contiguous(memory_format=form)
    copied: Tensor = aten._to_copy(
        tensor, dtype=dtype, device=device, non_blocking=non_blocking, memory_format=form
    )
    return copied


def named(value: Any) -> Any:
    """Return a GPU with its number where a number is missing, and anything else as it is."""
    is_named = is_gpu(value) if not isinstance(value, str) else value.partition(":")[0] in KINDS
    if not is_named:
        return value
    device = torch.device(value)
    numbered = ":" in str(device)
    return device if numbered else torch.device(device.type, _MACHINES[-1].device)


# --- kinds of operations --------------------------------------------------------------------------


def _on_cpu(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on CPU tensors; pinned memory is remembered by its address."""
    if func is aten.is_pinned.default:
        return _is_pinned(machine, args[0])
    if func in (aten.pin_memory.default, aten._pin_memory.default):
        return pin(machine, args[0].clone())
    pinned = kwargs.pop("pin_memory", None)
    if machine.shapes_only and func is aten.copy_.default and args[0].nbytes > shapes.SMALL:
        return args[0]  # weights on the way to a tensor without numbers
    result = func(*args, **kwargs)
    return pin(machine, result) if pinned else result


def pin(machine: Machine, tensor: Tensor) -> Tensor:
    """Return a CPU tensor that counts as pinned, as long as this object is alive."""
    if machine.refuses_pinned:
        error = torch.AcceleratorError("CUDA error: out of memory")
        error.error_code = 2  # type: ignore[attr-defined]
        raise error
    address = tensor.untyped_storage().data_ptr()
    machine.pinned.add(address)
    weakref.finalize(tensor, machine.pinned.discard, address)
    return tensor


def _is_pinned(machine: Machine, tensor: Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() in machine.pinned


def _waits(func: Any, args: tuple[Any, ...]) -> bool:
    """Return whether the host must know numbers to go on: a value, or the size of a result."""
    tags = func.tags
    draws = any(argument.name == "generator" for argument in func._schema.arguments)
    if torch.Tag.data_dependent_output in tags or draws:  # the generator is the CPU's
        return True
    if func in _INDEXING:
        return any(_is_mask(each) for each in args[1] if each is not None)
    return torch.Tag.dynamic_output_shape in tags


def _is_mask(index: Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


def _check_devices(
    machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: int
) -> None:
    """Refuse tensors of different devices, as CUDA's operations do."""
    for tensor in tensors_in((args, kwargs)):
        if isinstance(tensor, EmulatedTensor):
            if tensor.memory.device != device:
                raise RuleError(f"{func}: tensors on cuda:{device} and cuda:{tensor.memory.device}")
        elif tensor.dim():
            if func in _INDEXING and isinstance(args[0], EmulatedTensor):
                # torch copies an index from the CPU, and waits for it.
                machine.wait_here("index on the CPU", device)
            else:
                raise RuleError(f"{func}: tensors on cuda:{device} and cpu")


def _return_new(
    machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: int
) -> Any:
    """Run an operation that changes nothing: it returns views, or new tensors."""
    raw_args, raw_kwargs = _raw((args, kwargs))
    result = _computed(machine, func, raw_args, raw_kwargs)
    owners = {t.raw.untyped_storage()._cdata: t.memory for t in _emulated((args, kwargs))}
    news = tensors_in(result)
    shared = [owners.get(t.untyped_storage()._cdata) for t in news]
    if news and all(shared):
        return map_tensors(lambda t: EmulatedTensor(t, owners[t.untyped_storage()._cdata]), result)
    if any(shared):
        raise NotImplementedError(f"{func} returns views and new tensors")
    _count(machine, device, func, args, news)
    wrapped = _wrap_new(machine, result, device)
    if func in EMPTY:
        for each in news:
            _poison(each)
        return wrapped
    if machine.shapes_only:
        return wrapped

    def work() -> None:
        for target, value in zip(
            news,
            tensors_in(_plain(func, raw_args, raw_kwargs)),
            strict=True,
        ):
            _plain(aten.copy_.default, (target, value), {})

    if _is_immediate(machine):
        return wrapped
    for each in news:
        _poison(each)
    machine.stream(device).push(work)
    return wrapped


def _is_immediate(machine: Machine) -> bool:
    """Return whether a result may stay as it was computed for its shape."""
    return machine.order is Order.NOW and not machine.is_capturing


def _change(
    machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: int
) -> Any:
    """Queue an operation that writes into its arguments; return them."""
    raw_args, raw_kwargs = _raw((args, kwargs))
    machine.stream(device).push(lambda: _apply(machine, func, raw_args, raw_kwargs))
    return _written(func, args, kwargs)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what an operation returns that writes into its arguments."""
    written = [
        kwargs[a.name] if a.name in kwargs else args[i]
        for i, a in enumerate(func._schema.arguments)
        if a.alias_info is not None
        and a.alias_info.is_write
        and (a.name in kwargs or i < len(args))
    ]
    count = len(func._schema.returns)
    if count == 0:
        return None
    if count == 1 and len(written) == 1:
        return written[0]
    if count == len(written):
        return tuple(written)
    raise NotImplementedError(f"{func} changes {len(written)} tensors and returns {count}")


def _copy(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Copy within a device, to it, or from it."""
    wait = not (
        kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])
    )
    if func is aten.copy_.default:
        target, source = args[0], args[1]
    else:
        source = args[0]
        wanted = kwargs.get("device")
        index = _gpu_index(wanted) if wanted is not None else _index_of(source)
        dtype = kwargs.get("dtype") or source.dtype
        if machine.shapes_only:
            layout = shapes.empty_like(_raw(source), dtype)
        else:
            layout = _plain(aten.empty_like.default, (_raw(source),), {"dtype": dtype})
        if kwargs.get("memory_format") not in (None, torch.preserve_format):
            layout = layout.contiguous(memory_format=kwargs["memory_format"])
        if index is None:
            target = pin(machine, layout) if kwargs.get("pin_memory") else layout
        else:
            target = _wrap_new(machine, layout, index)
            _poison(layout)
    to, source_gpu = _index_of(target), _index_of(source)
    raw_target, raw_source = _raw((target, source))

    def work() -> None:
        _apply(machine, aten.copy_.default, (raw_target, raw_source), {})

    _count_copy(machine, to, source_gpu, target)
    if to is not None and source_gpu is not None:
        machine.launches["copy"] += 1
        there, here = machine.stream(to), machine.stream(source_gpu)
        if to == source_gpu:
            there.push(work)
        else:  # torch copies on the source's stream, and makes both wait for each other
            before = there.queued
            here.push(lambda: there.run_to(before))
            here.push(work)
            after = here.queued
            there.push(lambda: here.run_to(after))
    elif to is not None:
        machine.launches["copy to device"] += 1
        unpinned = source.dim() > 0 and not _is_pinned(machine, source)
        if unpinned:
            machine.sync("copy from memory that is not pinned")
        if (unpinned or not source.dim()) and shapes.has_numbers(raw_target):
            # The driver has read the source when the call returns.
            raw_source = _plain(aten.clone.default, (raw_source,), {})
        machine.stream(to).push(work)
        if wait and unpinned:
            machine.stream(to).finish()
        elif wait and source.dim():
            machine.wait_here("copy to the device", to)
    elif source_gpu is not None:
        machine.launches["copy from device"] += 1
        machine.stream(source_gpu).push(work)
        if wait or not _is_pinned(machine, target):
            machine.wait_here("copy from the device", source_gpu)
    else:
        work()
    return target


def _count_copy(machine: Machine, to: int | None, source: int | None, target: Tensor) -> None:
    """Count a copy within a GPU as a kernel, and others as copies over the bus."""
    here = source if to is None else to
    if here is None or not target.numel():
        return
    stream = machine.streams.index(machine.stream(here))
    work = machine.trace.work_on(stream, machine.devices)
    if to == source:
        work.kernels["copy"] += 1
    else:
        work.copies["from the device" if to is None else "to the device"] += 1


# --- small parts ----------------------------------------------------------------------------------


def _wrap_new(machine: Machine, result: Any, device: int) -> Any:
    """Return new raw tensors as tensors of a GPU, with memory of their own."""

    def wrap(raw: Tensor) -> EmulatedTensor:
        memory = Memory(machine, raw, machine.stream(device))
        machine.keep_for_capture(memory)
        return EmulatedTensor(raw, memory)

    return map_tensors(wrap, result)


def _poison(raw: Tensor) -> None:
    if raw.numel() and shapes.has_numbers(raw):
        value = _POISON.get(raw.dtype, float("nan") if raw.is_floating_point() else 0)
        _plain(aten.fill_.Scalar, (raw, value), {})


def _raw(tree: Any) -> Any:
    return map_tensors(lambda t: t.raw if isinstance(t, EmulatedTensor) else t, tree)


def _emulated(tree: Any) -> list[EmulatedTensor]:
    return [t for t in tensors_in(tree) if isinstance(t, EmulatedTensor)]


def _index_of(tensor: Tensor) -> int | None:
    return tensor.memory.device if isinstance(tensor, EmulatedTensor) else None


def is_gpu(device: Any) -> bool:
    """Return whether a device, or its name, is a GPU."""
    return isinstance(device, torch.device | str) and torch.device(device).type in KINDS


def _gpu_index(device: torch.device | str) -> int | None:
    found = torch.device(device)
    return (found.index or 0) if found.type in KINDS else None
