"""The interface of a backend. The core calls it, and never compares the names of devices.

A new backend is one module next to `cpu.py` and `cuda.py` and one line in `registry.py`. An
emulated device is an object of this class that replaces another one (`registry.replaced`).

Importing this package loads no torch: methods that need it import it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.errors import DeviceError
from cogvlm2_lite.text import Text

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A tensor in RAM that goes to a device, and its dtype there."""

    tensor: Tensor
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.tensor.numel() * self.dtype.itemsize


@dataclass(eq=False)
class HostCopy:
    """The bytes of a unit in pinned memory, as they lie on the device.

    chunks  [bytes] uint8 each; empty before the first upload, which fills them as far as the system
            allows
    is_full whether the system refused more
    """

    chunks: list[Tensor] = field(default_factory=list)
    is_full: bool = False


class Upload(Protocol):
    """Copies weights from host memory to a device; a context manager around one unit."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait until everything that was sent has arrived."""
        return

    def send(
        self,
        pieces: Sequence[Outgoing],
        room: Tensor | None = None,
        kept: HostCopy | None = None,
    ) -> list[Tensor]:
        """Return the copies of tensors on the device, or the tensors where no copy is needed.

        room  [bytes] uint8 of the device for all of them, one behind the other, each with
              device.aligned(its bytes); None: new memory
        kept  where the bytes of these pieces are kept for the next time; None: nowhere

        The copies may not be finished when this returns.
        """
        ...

    def wait_for_computing(self) -> None:
        """Let later copies wait until no computation that is queued now reads weights any more.

        Must be called before memory that was sent to is used for other weights, or released.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A captured computation: `replay` repeats it and writes its result into `output`."""

    replay: Callable[[], None]
    output: Tensor


CaptureGraph = Callable[[Callable[[], "Tensor"]], Graph]
"""Captures what a function queues on the device. RuntimeError if that is not possible."""

NewCapture = Callable[[], CaptureGraph]
"""Returns a CaptureGraph with a stream of its own, whose graphs share memory: so they must not run
at the same time, and the output of one is valid until another one runs."""


KeepPace = Callable[["torch.device"], None]
"""Called after a block was started on a device: waits until it has computed all but the last two.
So progress, a cancel and the time of a step are those of the device."""


def _never_ahead(device: torch.device) -> None:
    """Do nothing: the work is done when the call that started it returns."""


class Backend(ABC):
    """One kind of device. An instance serves all devices of its kind.

    kind               torch's name of the kind, which --device takes too
    uses_ram           Whether the memory of the device is RAM. Then budgets count RAM, weights come
                       from disk, there is no bus, and our C kernels can read tensors.
    four_bit_kernels   names of kernels for 4-bit matrices, in order of preference
                       (weights/kernels/choice.py)
    asked_kernels      names of kernels that are used only if a user names them
    measures_attention whether the fastest attention is measured; otherwise `full_attention` names
                       it
    loads_ahead        whether another thread may load weights while this one computes
    launches_kernels   whether the host launches a kernel for every operation of torch. Then a
                       decode step takes fewer operations, its attention is split over the keys,
                       and a calibration rounds matrices together
    has_convolutions   whether torch's convolutions are used; otherwise a matrix product
    uses_slab          whether all weights of a device lie in one allocation (memory/slab.py)
    """

    kind: ClassVar[str]
    uses_ram: ClassVar[bool]
    four_bit_kernels: ClassVar[tuple[str, ...]]
    asked_kernels: ClassVar[tuple[str, ...]] = ()
    measures_attention: ClassVar[bool] = False
    loads_ahead: ClassVar[bool] = True
    launches_kernels: ClassVar[bool] = False
    has_convolutions: ClassVar[bool] = True
    uses_slab: ClassVar[bool] = False

    # --- which devices there are ------------------------------------------------------------------

    @abstractmethod
    def has_driver(self) -> bool:
        """Return whether a driver is installed, without importing torch."""

    @abstractmethod
    def find(self) -> tuple[tuple[Gpu, ...], Text]:
        """Return the GPUs that can be used, and why others can't ("" if there is no reason).

        The GPU with the most free memory is first. A backend that uses RAM has no GPUs.
        """

    def no_gpu_error(self, reason: str) -> DeviceError:
        """Return the error for a user who asked for this backend on a computer without its GPUs."""
        return DeviceError("No {kind} GPU can be used: {why}.", kind=self.kind, why=reason)

    def cautions(self, gpu: Gpu) -> tuple[Text, ...]:
        """Return sentences that a user of this GPU should read before the first answer."""
        return ()

    def describe(self, gpu: Gpu) -> str:
        """Return what `doctor` shows about a GPU besides its name and memory; "" for nothing."""
        return ""

    def remedy(self, trouble: str) -> str:
        """Return a sentence that says what to do about GPUs that can't be used; "" for nothing.

        trouble  the reason that `find` returned
        """
        return ""

    # --- computing --------------------------------------------------------------------------------

    def torch_device(self, name: str) -> torch.device:
        """Return torch's device for the name in a budget, such as "cuda:1"."""
        import torch

        return torch.device(name)

    @abstractmethod
    def choose_dtype(self, device: torch.device) -> tuple[str, Text]:
        """Return the number type that is best on the device, and the reason."""

    def prepare(self) -> None:
        """Set what torch must know before the first computation; may be called again."""
        return

    def emulates(self, device: torch.device, dtype: str) -> bool:
        """Return whether the device has no arithmetic for a number type, so that it is slow."""
        return False

    def full_attention(self, dtype: torch.dtype) -> tuple[str, str]:
        """Return the name of the attention without a mask (full_attention.WAYS), and the reason."""
        return "torch SDPA", "the default"

    @abstractmethod
    def upload(self, device: torch.device) -> Upload:
        """Return an object that copies weights to a device."""

    def staged(self, tensor: Tensor) -> Tensor:
        """Return a CPU tensor from which an asynchronous copy to a device can be made."""
        return tensor

    def fetch(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return copies in host memory, after one wait for the device; tensors that are in host
        memory are returned as they are."""
        return [tensor.cpu() for tensor in tensors]

    def cache_bytes(self, device: torch.device) -> int:
        """Return the size of the cache between a GPU and its memory; 0 if unknown."""
        return 0

    def graph_capture(self, device: torch.device) -> NewCapture | None:
        """Return what makes captures of decode steps as graphs; None if there are no graphs."""
        return None

    def keep_pace(self) -> KeepPace:
        """Return what keeps the host from running ahead of a device, for one pass over blocks."""
        return _never_ahead

    def synchronize(self, device: torch.device) -> None:
        """Wait until the device has computed everything that was queued."""
        return

    # --- memory -----------------------------------------------------------------------------------

    @abstractmethod
    def held_bytes(self, device: torch.device) -> int:
        """Return the bytes of the device that this process holds now."""

    @abstractmethod
    def reset_peak(self, device: torch.device) -> None:
        """Start to record a new peak of `held_bytes`."""

    @abstractmethod
    def peak_bytes(self, device: torch.device) -> int:
        """Return the peak of `held_bytes` since the last reset; 0 if the system records none."""

    def limit_memory(self, device: torch.device, nbytes: int) -> None:
        """Let allocations fail that exceed what is held now and `nbytes` more.

        Where the driver moves memory to RAM when a GPU is full, it never fails by itself.
        """
        return

    def release_unused(self) -> None:
        """Return memory that this process caches for later allocations to the system."""
        return

    # --- failures ---------------------------------------------------------------------------------

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error of torch means that the device's memory ran out."""
        import torch

        return isinstance(error, torch.OutOfMemoryError)


def fallback_of(variable: str) -> str:
    """Return what `doctor` adds about a variable that lets torch compute on the CPU instead.

    "" if it is not set
    """
    value = os.environ.get(variable)
    return "" if value is None else f", {variable}={value}"


def fallback_cautions(variable: str) -> tuple[Text, ...]:
    """Return a sentence if a variable lets torch compute on the CPU what the GPU can't."""
    if os.environ.get(variable, "0") == "0":
        return ()
    return (
        Text("{name} is set, so torch computes on the CPU what this GPU can't.", name=variable),
    )


def untested(gpu: Gpu) -> Text:
    """Return a sentence about a GPU whose kind nobody has tried."""
    return Text(
        "{device} ({name}): {maker} GPUs are untested on real hardware. If answers look wrong, use "
        "--device cpu.",
        device=gpu.device,
        name=gpu.name,
        maker=gpu.maker,
    )
