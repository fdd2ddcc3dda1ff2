"""Attention of the tokens of a decode step over the cache, written in C.

attention.c, and attention_tokens_amx.c for bfloat16 on processors with AMX.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.calls import require
from cogvlm2_lite.weights.kernels.library import AMX, AVX512, Library

_VOID, _INT, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong, ctypes.c_float
_HEAD_DIM = 128
"""Of the AVX512 version."""
_STEP, _WIDEST = 16, 256
"""The AVX2 version takes heads of whole steps, up to the widest."""


class TokenAttentionKernel:
    """Calls the function of the library after checking all sizes.

    Bfloat16 needs AVX512-BF16, float32 AVX2. Intermediate results are float32. The result of a
    token and head does not depend on the other tokens and heads, or on the number of threads.
    """

    def __init__(self, library: Library) -> None:
        self._level = library.level
        self._attend = library.functions.attention_tokens
        self._attend.argtypes = [
            *[_LONG] * 6, *[_VOID] * 5, _LONG, _FLOAT, _VOID, _INT, _INT,
        ]  # fmt: skip
        self._by_tiles = library.functions.attention_tokens_amx
        self._by_tiles.argtypes = [
            *[_LONG] * 5, *[_VOID] * 5, _LONG, _FLOAT, _VOID, _INT,
        ]  # fmt: skip

    def takes(self, *, head_dim: int, dtype: torch.dtype) -> bool:
        """Return True if `attend` supports this."""
        if dtype == torch.float32:
            return head_dim % _STEP == 0 and head_dim <= _WIDEST
        return self._level >= AVX512 and dtype == torch.bfloat16 and head_dim == _HEAD_DIM

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attention of one token: softmax(q @ k.T / sqrt(head_dim)) @ v, per head.

        q        [kv_heads, group, head_dim]; a group shares its head's keys and values
        k, v     [kv_heads, keys, head_dim], at least one key; a head's rows are contiguous
        Returns  [kv_heads, group, head_dim], dtype of q
        """
        return self.attend_tokens(q[None], [k], [v])[0]

    def attend_tokens(self, q: Tensor, k: Sequence[Tensor], v: Sequence[Tensor]) -> Tensor:
        """Return the attention of consecutive tokens of one sequence.

        q        [tokens, kv_heads, group, head_dim]
        k, v     as the cache stores them: numbers in the dtype of q, or 8-bit codes and their
                 scales, [kv_heads, keys, head_dim] and [kv_heads, keys, 1]. The last token sees all
                 keys, each other one a key less than the next.
        Returns  [tokens, kv_heads, group, head_dim], dtype of q
        """
        tokens, heads, group, width = q.shape
        keys, stride = k[0].shape[1], k[0].stride(0)
        assert self.takes(head_dim=width, dtype=q.dtype)
        assert keys >= tokens > 0
        flat = q.contiguous()
        require(flat, q.dtype, tokens * heads * group * width)
        coded = len(k) == 2
        for numbers in (k[0], v[0]):
            assert numbers.is_cpu
            assert numbers.dtype == (torch.int8 if coded else q.dtype)
            assert numbers.shape == (heads, keys, width)
            assert numbers.stride() == (stride, width, 1)
        for scales in (*k[1:], *v[1:]):
            assert scales.is_cpu
            assert scales.dtype == torch.float32
            assert scales.shape == (heads, keys, 1)
            assert scales.stride()[:2] == (k[1].stride(0), 1)
        out = torch.empty(tokens, heads, group, width)
        rows = (
            flat.data_ptr(), k[0].data_ptr(), v[0].data_ptr(),
            k[1].data_ptr() if coded else None, v[1].data_ptr() if coded else None,
            k[1].stride(0) if coded else 0, width**-0.5, out.data_ptr(),
        )  # fmt: skip
        sizes, first, threads = (tokens, heads, group), keys - tokens + 1, torch.get_num_threads()
        if q.dtype == torch.bfloat16 and self._level == AMX:
            failed = self._by_tiles(*sizes, first, stride, *rows, threads)
        else:
            wide = q.dtype == torch.float32
            failed = self._attend(*sizes, width, first, stride, *rows, wide, threads)
        if failed:
            raise MemoryError
        return out.to(q.dtype)
