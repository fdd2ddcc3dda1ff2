"""What a plan is made for: this computer as it is now, or one that is only described."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cogvlm2_lite.backends.cpu import cpu_flags
from cogvlm2_lite.devices import choose_gpus, parse_device, prepare_threads, thread_count
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.forecast.rates import Card, Cpu, Rates, gpu_rates
from cogvlm2_lite.memory.budget import (
    Allowance,
    assumed_budgets,
    cpu_budget,
    free_ram_bytes,
    gpu_budgets,
)
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, format_bytes
from cogvlm2_lite.weights.kernels.built import built_kernel


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a plan is made for.

    label     in a few words: "cuda:0 (RTX 4060)", "the CPU"
    budgets   one per device
    rates     one per device
    itemsize  bytes of the compute dtype
    packed    whether 4-bit matrices used in decoding get a second, packed copy
    remarks   what a person should know about it, in sentences
    """

    label: str
    budgets: tuple[DeviceBudget, ...]
    rates: tuple[Rates, ...]
    itemsize: int = 2
    packed: bool = False
    remarks: tuple[Text, ...] = ()

    @property
    def in_ram(self) -> bool:
        return self.budgets[0].in_ram


def find_machine(
    device: str, allowance: Allowance, *, card: Card | None = None, measure: bool = False
) -> Machine:
    """Describe what --device, --vram, --ram and --card mean.

    device   as for choose_gpus
    card     take this card's rates and, if nothing else is said, its memory
    measure  measure the processor instead of stating its rates

    A size of video memory or a card stands for GPUs of that size, whatever is in this computer, and
    no torch is imported. Raises UsageError for what contradicts itself, and what choose_gpus does.
    """
    imagined = allowance.vram or ((card.gib * GIB,) if card else None)
    word = parse_device(device)
    if imagined and word.backend is not None and word.backend.uses_ram:
        raise UsageError(
            "--vram and --card describe a GPU, but --device cpu uses none.",
            hint="Leave --device out, or limit the CPU with --ram.",
        )
    if imagined:
        _refuse_measure(measure)
        return _imagined_gpus(imagined, allowance, card)
    gpus, trouble = choose_gpus(device)
    remarks: tuple[Text, ...] = ()
    if trouble:
        not_used = "Not every GPU is used: {why}." if gpus else "No GPU is used: {why}."
        remarks = (Text(not_used, why=trouble),)
    if not gpus:
        machine = cpu_machine(allowance, measure=measure)
        return replace(machine, remarks=(*remarks, *machine.remarks))
    _refuse_measure(measure)
    budgets = gpu_budgets(gpus, allowance, free_ram_bytes())
    return Machine(
        label=", ".join(f"{gpu.device} ({gpu.name})" for gpu in gpus),
        budgets=budgets,
        rates=tuple(gpu_rates(gpu.name, gpu.total_bytes) for gpu in gpus),
        remarks=remarks,
    )


def _refuse_measure(measure: bool) -> None:
    if measure:
        raise UsageError(
            "--measure measures the processor, but this plan is for a GPU.",
            hint="Add --device cpu, or leave --measure out.",
        )


def _imagined_gpus(vram: tuple[int, ...], allowance: Allowance, card: Card | None) -> Machine:
    sizes = " and ".join(format_bytes(size) for size in vram)
    return Machine(
        label=f"{'a GPU' if len(vram) == 1 else f'{len(vram)} GPUs'} with {sizes}",
        budgets=assumed_budgets(vram, allowance, free_ram_bytes()),
        rates=tuple(card.rates if card else gpu_rates("", size) for size in vram),
    )


def cpu_machine(allowance: Allowance, *, measure: bool = False) -> Machine:
    """Describe this computer without a GPU."""
    cpu, free = this_cpu(), free_ram_bytes()
    remarks: tuple[Text, ...] = ()
    if allowance.ram is not None and allowance.ram > free:
        remarks = (Text("This computer has only {size} of RAM free now.", size=format_bytes(free)),)
    return Machine(
        label="the CPU",
        budgets=(cpu_budget(allowance, free, assumed=True),),
        remarks=remarks,
        rates=(measure_cpu(cpu) if measure else cpu.rates,),
        itemsize=cpu.itemsize,
        packed=cpu.packs,
    )


def this_cpu() -> Cpu:
    """Look at this computer's processor. Where features are not told, the plainest is assumed."""
    flags = cpu_flags()
    return Cpu(
        cores=thread_count(),
        has_bf16="avx512_bf16" in flags,
        has_avx512="avx512f" in flags,
        has_amx="amx_bf16" in flags,
        has_gemv=built_kernel() is not None and "avx2" in flags,
    )


def measure_cpu(cpu: Cpu) -> Rates:
    """Measure multiplication and decoding on this processor, in half a second, with torch.

    The disk's rate stays a stated one: what was just read would come from memory.
    """
    prepare_threads()
    from cogvlm2_lite.forecast.measure import decode_rate, matmul_rate

    return replace(
        cpu.rates,
        matmul_flops=matmul_rate(cpu.itemsize),
        memory_bytes_per_s=decode_rate(itemsize=cpu.itemsize, packed=cpu.packs),
        source=Text("measured on this processor, {count} cores, disk stated", count=cpu.cores),
    )
