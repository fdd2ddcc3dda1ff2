"""Reads machine code for NVIDIA's GPUs: the loops of a kernel and the number of their instructions.

An instruction has 16 bytes from Volta on; its lower 12 bits say what it does. NVIDIA documents none
of this: the numbers are those that compiled kernels show.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_BRANCH, _TENSOR_PRODUCT = 0x947, 0x23C
_INSTRUCTION_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A loop without inner branches back.

    instructions  from its first to the branch back
    products      those on tensor cores
    """

    instructions: int
    products: int


def loops(cubin: bytes, kernel: str, architecture: int) -> list[Loop]:
    """Return a kernel's loops, in the order of the code."""
    code = next(code for name, code in _texts(cubin) if name == kernel)
    words = [low | high << 64 for low, high in struct.iter_unpack("<QQ", code)]
    found = []
    for place, word in enumerate(words):
        if word & 0xFFF == _BRANCH:
            target = place + 1 + _offset(word, architecture) // _INSTRUCTION_BYTES
            if 0 <= target < place:
                body = words[target : place + 1]
                products = sum(each & 0xFFF == _TENSOR_PRODUCT for each in body)
                found.append(Loop(instructions=len(body), products=products))
    return found


def _offset(word: int, architecture: int) -> int:
    """Return the bytes from the next instruction to a branch's target."""
    field = word >> 34 & (1 << 48) - 1
    field -= field >> 47 << 48
    if architecture >= 90:
        field = field << 8 | word >> 16 & 0xFF
    return 4 * field


def _texts(elf: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the code of each kernel of an ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + size * i) for i in range(count)]
    texts = sections[names][4]
    for name_place, _, _, _, offset, length in sections:
        begin = texts + name_place
        name = elf[begin : elf.index(b"\0", begin)].decode()
        if name.startswith(".text."):
            yield name.removeprefix(".text."), elf[offset : offset + length]
