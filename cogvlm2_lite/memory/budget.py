"""How much memory may be used: what is free now, or what the user allows, less a reserve.

Free memory excludes what other programs and loaded models hold, and respects the limits of a
container. No torch here; the free memory of a GPU is passed in (backends.device.Gpu).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.memory.inventory import UnitKey
from cogvlm2_lite.memory.plan import RESERVE_BYTES, DeviceBudget, Workload, plan_memory
from cogvlm2_lite.text import Text, join
from cogvlm2_lite.units import MIB, format_bytes, parse_bytes

AUTO = "auto"

_MOST_BYTES = 1 << 50
VRAM_HINT = Text("Write it like 8GiB, for two GPUs like 8GiB,12GiB, or auto for what is free.")
RAM_HINT = Text("Write it like 16GiB, or auto for what is free.")


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The memory that the user allows, in bytes; None: what is free.

    vram  bytes of each GPU, or one number for all of them
    """

    vram: tuple[int, ...] | None = None
    ram: int | None = None


def read_allowance(vram: str | int | None, ram: str | int | None) -> Allowance:
    """Read the values of --vram and --ram: "auto" or None, a size, bytes; for vram also a list.

    Raises UsageError for anything else, and for impossible sizes.
    """
    video = None
    if vram is not None and vram != AUTO:
        items = [item for item in str(vram).split(",") if item.strip()] or [str(vram)]
        video = tuple(_size(item, "--vram", VRAM_HINT) for item in items)
    host = None if ram is None or ram == AUTO else _size(str(ram), "--ram", RAM_HINT)
    return Allowance(vram=video, ram=host)


def _size(text: str, option: str, hint: str) -> int:
    param = option.removeprefix("--")
    try:
        count = parse_bytes(text)
    except UsageError:
        raise UsageError(
            "{value!r} is not a size for {option}.",
            hint=hint,
            param=param,
            option=option,
            value=text.strip(),
        ) from None
    if count > _MOST_BYTES:
        raise UsageError(
            "{value} for {option} is more than any computer has.",
            hint=hint,
            param=param,
            option=option,
            value=text.strip(),
        )
    if count < MIB:
        meant = text.strip()
        guess = Text()
        if count and meant.isdecimal():
            guess = Text("Did you mean {value}GiB?", value=meant)
        raise UsageError(
            "{size} for {option} is too small for any plan.",
            hint=join(guess, hint),
            param=param,
            option=option,
            size=format_bytes(count),
        )
    return count


def gpu_budgets(
    gpus: Sequence[Gpu], allowance: Allowance, free_ram_bytes: int
) -> tuple[DeviceBudget, ...]:
    """Return the budgets of the GPUs of this computer.

    Allowing more than is free changes nothing; the budget's remark says so. Raises UsageError if
    the number of allowed sizes is neither one nor the number of GPUs.
    """
    allowed = _per_gpu(allowance.vram, len(gpus))
    host = _host_share(allowance, free_ram_bytes, len(gpus))
    return tuple(
        _gpu_budget(gpu, given, host, free_ram_bytes)
        for gpu, given in zip(gpus, allowed, strict=True)
    )


def _gpu_budget(
    gpu: Gpu, allowed: int | None, host_bytes: int, free_ram_bytes: int
) -> DeviceBudget:
    """Return the budget of a GPU. If it shares the RAM, what it uses is not free for the host."""
    free = min(gpu.free_bytes, free_ram_bytes) if gpu.shares_ram else gpu.free_bytes
    budget = _budget(
        gpu.device,
        free=free,
        allowed=allowed,
        host_bytes=host_bytes,
        where=Text(
            "{device} ({name}, {size})",
            device=gpu.device,
            name=gpu.name,
            size=format_bytes(gpu.total_bytes),
        ),
    )
    if not gpu.shares_ram:
        return budget
    return replace(budget, host_bytes=max(0, host_bytes - budget.device_bytes))


def assumed_budgets(
    vram: Sequence[int], allowance: Allowance, free_ram_bytes: int
) -> tuple[DeviceBudget, ...]:
    """Return the budgets of GPUs with the given sizes, which this computer need not have."""
    host = _host_share(allowance, free_ram_bytes, len(vram))
    names = ["GPU"] if len(vram) == 1 else [f"GPU {index}" for index in range(len(vram))]
    return tuple(
        _budget(name, free=None, allowed=given, host_bytes=host, where=name)
        for name, given in zip(names, vram, strict=True)
    )


def cpu_budget(allowance: Allowance, free_ram_bytes: int, *, assumed: bool = False) -> DeviceBudget:
    """Return the budget without a GPU: RAM is the device, and other weights come from disk.

    assumed  use the allowed size even if less is free
    """
    free = None if assumed and allowance.ram is not None else free_ram_bytes
    return _budget(
        "cpu",
        free=free,
        allowed=allowance.ram,
        host_bytes=0,
        where=Text("this computer"),
        in_ram=True,
    )


def _budget(
    device: str,
    *,
    free: int | None,
    allowed: int | None,
    host_bytes: int,
    where: str,
    in_ram: bool = False,
) -> DeviceBudget:
    sizes = [size for size in (free, allowed) if size is not None]
    taken = min(sizes)
    given = taken == allowed
    if in_ram:
        origin = (
            "{size} given, {reserve} left for other programs"
            if given
            else "{size} free now, {reserve} left for other programs"
        )
    else:
        origin = (
            "{size} given, {reserve} left for the driver and other programs"
            if given
            else "{size} free now, {reserve} left for the driver and other programs"
        )
    remark = Text()
    if free is not None and allowed is not None and allowed > free:
        remark = Text(
            "{size} is allowed, but only {free} is free on {device}; the plan uses what is free.",
            size=format_bytes(allowed),
            free=format_bytes(free),
            device=where,
        )
    return DeviceBudget(
        device=device,
        device_bytes=max(0, taken - RESERVE_BYTES),
        host_bytes=host_bytes,
        in_ram=in_ram,
        origin=Text(origin, size=format_bytes(taken), reserve=format_bytes(RESERVE_BYTES)),
        remark=remark,
    )


def _per_gpu(vram: tuple[int, ...] | None, count: int) -> tuple[int | None, ...]:
    if vram is None:
        return (None,) * count
    if len(vram) not in (1, count):
        raise UsageError(
            "--vram has {given} sizes, but the number of usable GPUs is {count}.",
            hint="Give one size for all GPUs, or one for each.",
            param="vram",
            given=len(vram),
            count=count,
        )
    return vram * count if len(vram) == 1 else vram


def _host_share(allowance: Allowance, free_ram_bytes: int, devices: int) -> int:
    """Return each GPU's equal share of RAM, for the weights that are streamed to it."""
    usable = free_ram_bytes if allowance.ram is None else allowance.ram
    return max(0, usable - RESERVE_BYTES) // devices


def useful_devices(
    config: ModelConfig,
    sizes: Mapping[UnitKey, int],
    budgets: Sequence[DeviceBudget],
    workload: Workload,
) -> tuple[DeviceBudget, ...]:
    """Return the GPUs to spread a model over: the first ones that together hold all weights.

    Copying a hidden state from one GPU to another takes time, so no more GPUs than necessary are
    used. If all GPUs together can't hold all weights, every GPU that can hold a share is used.
    """
    streams: dict[int, bool] = {}
    for count in range(1, len(budgets) + 1):
        with suppress(DoesNotFitError):
            streams[count] = plan_memory(config, sizes, budgets[:count], workload).streams
    whole = [count for count, does in streams.items() if not does]
    best = min(whole) if whole else max(streams, default=len(budgets))
    return tuple(budgets[:best])


def check_context(config: ModelConfig, context: int | None) -> int:
    """Return the tokens to plan for; None: the model's maximum. Raises UsageError if impossible."""
    most = config.max_position_embeddings
    if context is None:
        return most
    if not 1 <= context <= most:
        raise UsageError(
            "A context of {context} tokens is not possible; the model supports at most {most}.",
            hint="Give a number from {least} (a picture and a few questions) to {most}.",
            context=context,
            most=most,
            least=config.vision.image_tokens + 512,
        )
    return context


def free_ram_bytes(root: Path = Path("/")) -> int:
    """Return the bytes of RAM that are free now, within the limits of the control groups.

    root  the root of the file system; tests pass another one
    """
    limits = (_free_in_group(group) for group in _control_groups(root))
    return min([psutil.virtual_memory().available, *(free for free in limits if free is not None)])


def free_disk_bytes(path: Path) -> int | None:
    """Return the free bytes on the disk of a path, which need not exist; None if unknown."""
    there = next((p for p in (path, *path.parents) if p.exists()), None)
    try:
        return None if there is None else shutil.disk_usage(there).free
    except OSError:
        return None


def _control_groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's memory control groups, of version 1 and 2.

    A parent's limit applies to its children too. In a container the reported path may not be
    mounted: then the mount itself is the container's own group.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controllers:
            if "memory" not in controllers.split(","):
                continue
            mount /= "memory"
        group = mount
        yield group
        for name in Path(path).parts[1:]:
            group /= name
            yield group


def _free_in_group(group: Path) -> int | None:
    """Return the bytes that a control group still allows; None without a limit.

    Its usage includes cached file pages, which the system frees when memory is needed.
    """
    for limit_name, used_name, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        limit, used = _number(group / limit_name), _number(group / used_name)
        if limit is not None and used is not None:
            rows = (line.split() for line in _read(group / "memory.stat").splitlines())
            stat = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
            cached = sum(stat.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
            return max(0, limit - max(0, used - cached))
    return None


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
