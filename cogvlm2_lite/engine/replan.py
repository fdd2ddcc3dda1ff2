"""Replans with a smaller budget when memory runs out, so that the answer can continue.

Another program may take video memory at any time, and then the current plan is wrong. A plan with a
smaller budget keeps fewer weights resident and streams more; the answer is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import torch

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.backends.registry import backend_of, backends
from cogvlm2_lite.errors import DeviceError, DoesNotFitError
from cogvlm2_lite.events import Replanned
from cogvlm2_lite.memory.arena import OutOfBudgetError
from cogvlm2_lite.memory.inventory import UnitKey
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan, Workload, plan_memory
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import format_bytes

MAY_BE_OUT_OF_MEMORY = (OutOfBudgetError, RuntimeError)
"""Types of the errors that `out_of_memory` may recognise. Libraries of a driver, such as cuBLAS,
report a lack of memory in plain RuntimeErrors."""

DEVICE_ERROR = (torch.AcceleratorError,)
"""Errors of the driver. Replanning does not help after a card disappeared or a kernel crashed:
every further call of this process to the card fails, too."""


def out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out: a budget, or the memory of a device."""
    if isinstance(error, OutOfBudgetError):
        return True
    return any(backend.is_out_of_memory(error) for backend in backends())


MAX_REPLANS_PER_ANSWER = 8
"""If these are not enough, memory shrinks faster than new plans can follow."""


def device_lost(error: Exception) -> DeviceError:
    """Return the error for a GPU that this process can no longer use."""
    first_line = str(error).strip().partition("\n")[0].rstrip(".")
    return DeviceError(
        "The GPU stopped working during the computation: {why}.",
        hint="Start again, with --device cpu if it happens again; `cogvlm2-lite doctor` shows "
        "which GPUs still respond.",
        why=first_line,
    )


MISSING = (NotImplementedError,)
"""How torch reports an operation that a kind of device can't compute."""


def missing_operation(error: Exception) -> DeviceError:
    """Return the error for an operation that a GPU lacks. It is not computed on the CPU instead."""
    first = str(error).strip().partition(". ")[0].rstrip(".")
    return DeviceError(
        "The GPU can't compute this model: {why}.",
        hint="Use --device cpu, or another version of torch.",
        why=first,
    )


class FollowsPlan(Protocol):
    """A model whose weights are where a plan keeps them: that of answers, or of a training run."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def plan(self) -> MemoryPlan: ...

    def follow(self, plan: MemoryPlan) -> None:
        """Switch to a plan for the same devices, with the same blocks on each of them."""
        ...


class Replanner:
    """Makes plans with smaller budgets for a model.

    sizes     bytes of every unit in memory
    workload  what the plans must have room for
    """

    def __init__(
        self, runtime: FollowsPlan, sizes: Mapping[UnitKey, int], workload: Workload
    ) -> None:
        self._runtime = runtime
        self._sizes = sizes
        self._workload = workload

    def replan(self) -> Replanned:
        """Switch to a plan that needs less memory, and release what it does not keep.

        Raises DoesNotFitError if there is none: even the smallest working set was too large.
        """
        runtime = self._runtime
        old = runtime.plan
        new = self._smaller(old)
        runtime.follow(new)
        for backend in {backend_of(d.budget.device) for d in new.devices}:
            backend.release_unused()
        streamed = max(new.streamed_bytes().values()) - max(old.streamed_bytes().values())
        return Replanned(
            text=Text(
                "Memory ran out. {size} more of the weights now come from RAM or disk for each "
                "use; the answer continues more slowly."
                if self._workload.training is None
                else "Memory ran out. {size} more of the weights now come from RAM or disk for "
                "each use; the step starts again.",
                size=format_bytes(max(0, streamed)),
            ),
            budget_bytes=tuple(d.budget.device_bytes for d in new.devices),
        )

    def make_room(self, parallel: int) -> None:
        """Switch to a plan for more conversations at once, within the same budgets.

        Raises DoesNotFitError, and changes nothing, if no plan fits.
        """
        runtime, workload = self._runtime, replace(self._workload, parallel=parallel)
        old = runtime.plan.devices
        new = plan_memory(
            runtime.config,
            self._sizes,
            [device.budget for device in old],
            workload,
            shares=[device.blocks for device in old],
        )
        self._workload = workload
        runtime.follow(new)
        # The next slab is smaller; taken from the memory of the old one, it would split it.
        for backend in {backend_of(d.budget.device) for d in new.devices}:
            backend.release_unused()

    def _smaller(self, old: MemoryPlan) -> MemoryPlan:
        """Return the plan halfway between the old one and the smallest possible one."""
        least, most = 0.0, 1.0
        for _ in range(30):
            middle = (least + most) / 2
            least, most = (least, middle) if self._scaled(old, middle) else (middle, most)
        new = self._scaled(old, (most + 1.0) / 2)
        if new is None or new.peak_bytes >= old.peak_bytes:
            raise DoesNotFitError(
                "Memory ran out, and no plan needs less than {size}.",
                hint="Close other programs, or plan with a shorter --context."
                if self._workload.training is None
                else "Close other programs, allow more memory, or use a smaller --max-tokens or "
                "--rank.",
                size=format_bytes(old.peak_bytes),
            )
        return new

    def _scaled(self, old: MemoryPlan, factor: float) -> MemoryPlan | None:
        """Return a plan for the same blocks within a share of the old budget, or None."""
        budgets = [
            DeviceBudget(
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
