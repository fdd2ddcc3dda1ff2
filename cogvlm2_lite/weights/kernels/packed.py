"""The layout of bitsandbytes' AVX512-BF16 multiplication, made without its scratch.

Rows go in blocks of 32. Within a block, for every pair of columns (k, k + 1), 32 bytes: byte 2r + c
holds the code of row r, column k + c in its low half and that of row r + 16 in its high half.
Scales are rounded to bfloat16 and transposed to [in_features / group, out_features]. Which matrices
fit is said by footprint.can_pack.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cogvlm2_lite.weights.footprint import PACKED_BLOCK

_CHUNK_BYTES = 1 << 20


def pack(codes: Tensor, rows: int, columns: int) -> Tensor:
    """Rearrange a matrix's codes, some blocks of rows at a time.

    codes    [rows * columns / 2] uint8 in the file's layout; not changed
    Returns  [rows, columns / 2] uint8. Scratch: about 4 MiB.
    """
    half, pairs = PACKED_BLOCK // 2, columns // 2
    blocks = rows // PACKED_BLOCK
    source = codes.view(blocks, 2, half, pairs)
    packed = torch.empty(blocks, pairs, half, dtype=torch.int16)
    step = max(1, _CHUNK_BYTES // (PACKED_BLOCK * pairs))
    for start in range(0, blocks, step):
        upper, lower = source[start : start + step].unbind(1)
        first = (upper >> 4) | (lower & 0xF0)
        second = (upper & 0x0F) | (lower << 4)
        pair = first.to(torch.int16).bitwise_or_(second.to(torch.int16) << 8)
        packed[start : start + step] = pair.transpose(1, 2)
    return packed.view(torch.uint8).view(rows, pairs)


def pack_scales(absmax: Tensor, rows: int) -> Tensor:
    """Round and transpose scales for the layout.

    absmax   [groups] float32
    Returns  [in_features / group, out_features] bfloat16
    """
    return absmax.view(rows, -1).to(torch.bfloat16).t().contiguous()
