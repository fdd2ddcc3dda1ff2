"""What to do when memory runs out: make a tighter plan and go on.

Another program may take video memory at any moment. The plan then in force is wrong; a plan with a
smaller budget streams more and keeps less, and gives the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from cogvlm2_lite.backends.registry import backend_of, backends
from cogvlm2_lite.engine.runtime import Runtime
from cogvlm2_lite.errors import DeviceError, DoesNotFitError
from cogvlm2_lite.events import Replanned
from cogvlm2_lite.memory.arena import OutOfBudgetError
from cogvlm2_lite.memory.inventory import UnitKey
from cogvlm2_lite.memory.plan import Budget, MemoryPlan, Workload, plan_memory
from cogvlm2_lite.units import format_bytes

OUT_OF_MEMORY = (OutOfBudgetError, torch.OutOfMemoryError)
"""Recognised by type, never by message. torch raises the same types for every kind of device."""

DEVICE_ERROR = (torch.AcceleratorError,)
"""What the driver refuses. No plan helps against a card that vanished or a kernel that crashed: all
that this process still asks of the card fails too."""


def out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out: a budget, or the memory of a device."""
    return isinstance(error, OUT_OF_MEMORY) or any(b.is_out_of_memory(error) for b in backends())


MOST_PER_ANSWER = 8
"""Plans made for one answer; then memory is vanishing faster than it can be planned for."""


def device_lost(error: Exception) -> DeviceError:
    """Say in a sentence that the GPU is gone for this process."""
    first_line = str(error).strip().partition("\n")[0].rstrip(".")
    return DeviceError(
        "The GPU stopped working in the middle of it: {first_line}.",
        hint="Start again, with --device cpu if it happens again; `cogvlm2-lite doctor` shows "
        "which GPUs still answer.",
        first_line=first_line,
    )


class Tightener:
    """Makes tighter plans for a runtime.

    sizes     bytes in memory of every unit
    workload  what is planned for
    """

    def __init__(self, runtime: Runtime, sizes: Mapping[UnitKey, int], workload: Workload) -> None:
        self._runtime = runtime
        self._sizes = sizes
        self._workload = workload

    def tighten(self) -> Replanned:
        """Put a plan in force that needs less, and give back what it does not keep.

        Raises DoesNotFitError when there is none: even the smallest working set was too much.
        """
        runtime = self._runtime
        old = runtime.plan
        new = self._smaller(old)
        runtime.follow(new)
        for backend in {backend_of(d.budget.device) for d in new.devices}:
            backend.release_unused()
        streamed = max(new.streamed_bytes().values()) - max(old.streamed_bytes().values())
        return Replanned(
            text=(
                f"Memory ran out. {format_bytes(streamed)} more of the weights now come from RAM "
                "or disk for each use; the answer goes on, more slowly."
            ),
            budget_bytes=tuple(d.budget.device_bytes for d in new.devices),
        )

    def _smaller(self, old: MemoryPlan) -> MemoryPlan:
        """Give up half of what lies between the plan and the smallest one that exists."""
        least, most = 0.0, 1.0
        for _ in range(30):
            middle = (least + most) / 2
            least, most = (least, middle) if self._scaled(old, middle) else (middle, most)
        new = self._scaled(old, (most + 1.0) / 2)
        if new is None or new.peak_bytes >= old.peak_bytes:
            raise DoesNotFitError(
                "Memory ran out, and {size} is the least that would do.",
                hint="Close other programs, or plan with a shorter --context.",
                size=format_bytes(old.peak_bytes),
            )
        return new

    def _scaled(self, old: MemoryPlan, factor: float) -> MemoryPlan | None:
        """Plan the same spread of blocks within a share of the old plan, if that can be."""
        budgets = [
            Budget(
                device=device.budget.device,
                device_bytes=int(min(device.peak_bytes, device.budget.device_bytes) * factor),
                host_bytes=device.budget.host_bytes,
                in_ram=device.budget.in_ram,
            )
            for device in old.devices
        ]
        shares = [device.blocks for device in old.devices]
        try:
            return plan_memory(
                self._runtime.config, self._sizes, budgets, self._workload, shares=shares
            )
        except DoesNotFitError:
            return None
