"""Attention of one token, written in C (attention.c)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.calls import longs, pointer, require
from cogvlm2_lite.weights.kernels.library import AVX512, Library

_HEAD_DIM = 128


class TokenAttentionKernel:
    """Calls the function of the library after checking all sizes."""

    def __init__(self, library: Library) -> None:
        self._level = library.level
        self._functions = library.functions

    def takes(self, *, head_dim: int, dtype: torch.dtype) -> bool:
        """Return True if `attend` supports this."""
        return self._level >= AVX512 and dtype == torch.bfloat16 and head_dim == _HEAD_DIM

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attention of one token: softmax(q @ k.T / sqrt(head_dim)) @ v, per head.

        q        [kv_heads, group, head_dim] bfloat16; a group shares its head's keys and values
        k, v     [kv_heads, keys, head_dim] bfloat16, at least one key; a head's rows are contiguous
        Returns  [kv_heads, group, head_dim] bfloat16; intermediate results are float32. The result
                 of a head does not depend on the other heads or on the number of threads.
        """
        heads, group, width = q.shape
        keys, stride = k.shape[1], k.stride(0)
        flat = q.contiguous()
        require(flat, torch.bfloat16, heads * group * _HEAD_DIM)
        for rows in (k, v):
            assert rows.is_cpu
            assert rows.dtype == torch.bfloat16
            assert rows.shape == (heads, keys, width) == (heads, keys, _HEAD_DIM)
            assert rows.stride() == (stride, _HEAD_DIM, 1)
        assert keys > 0
        out = torch.empty(heads, group, width)
        self._functions.attention_token(
            *longs(heads, group, keys, stride), pointer(flat), pointer(k), pointer(v),
            ctypes.c_float(width**-0.5), pointer(out), torch.get_num_threads(),
        )  # fmt: skip
        return out.to(q.dtype)
