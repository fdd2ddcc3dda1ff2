"""Attention of many queries in bfloat16, written in C (attention_amx.c, attention_512.c)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.calls import longs
from cogvlm2_lite.weights.kernels.library import AMX, AVX512, Library

_WIDTHS = (112, 128)
"""Numbers of a head of the vision tower and of the decoder."""
_MOST_THREADS = 64


class _Attention(ctypes.Structure):
    """`Attention` in attention_many.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "out")),
        *(
            (f"{name}_{stride}", ctypes.c_longlong)
            for name in ("q", "k", "v", "out")
            for stride in ("head", "token")
        ),
        *(
            (name, ctypes.c_longlong)
            for name in ("heads", "group", "queries", "keys", "width", "causal")
        ),
        ("scale", ctypes.c_float),
    ]


class ManyQueriesKernel:
    """Attention of any number of queries in bfloat16, with a softmax in float32.

    A query's result depends only on the keys that it sees. Without keys that a query does not see,
    or with such keys behind the others, its bits are the same. They differ between AMX and AVX512.

    amx  whether it uses AMX; else AVX512-BF16
    """

    def __init__(self, library: Library, *, amx: bool) -> None:
        functions = library.functions
        functions.attention_many_room.restype = ctypes.c_longlong
        self._room = functions.attention_many_room
        self._attend = functions.attention_amx if amx else functions.attention_512
        self.amx = amx

    def takes(self, *, head_dim: int, dtype: torch.dtype) -> bool:
        """Return True if `attend` supports this."""
        return dtype == torch.bfloat16 and head_dim in _WIDTHS

    def room_bytes(self, keys: int, *, head_dim: int, threads: int) -> int:
        """Return the bytes of memory that `attend` needs: keys and values of one head, and less
        than 1 MiB for each thread."""
        return int(self._room(*longs(keys, head_dim), threads))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        """Return softmax(q @ k.T / sqrt(head_dim)) @ v.

        q        [batch, heads, tokens, head_dim] bfloat16; query head h reads key/value head
                 h // group
        k, v     [batch, kv_heads, keys, head_dim] bfloat16
        causal   the queries are the last tokens of the keys, and see none behind themselves
        Returns  [batch, tokens, heads, head_dim] bfloat16. Only the last dimension of the inputs
                 must be contiguous.
        """
        batch, heads, tokens, width = q.shape
        kv_heads, keys = k.shape[1:3]
        assert self.takes(head_dim=width, dtype=q.dtype)
        assert heads % kv_heads == 0
        assert k.shape == v.shape == (batch, kv_heads, keys, width)
        assert tokens > 0
        assert tokens <= keys if causal else keys > 0
        for each in (q, k, v):
            assert each.is_cpu
            assert each.dtype == torch.bfloat16
            assert each.stride(3) == 1
        out = torch.empty(batch, tokens, heads, width, dtype=q.dtype)
        threads = min(torch.get_num_threads(), _MOST_THREADS)
        room = torch.empty(
            self.room_bytes(keys, head_dim=width, threads=threads), dtype=torch.uint8
        )
        for one_q, one_k, one_v, one_out in zip(q, k, v, out, strict=True):
            strides = [each.stride()[:2] for each in (one_q, one_k, one_v)]
            self._attend(
                ctypes.byref(
                    _Attention(
                        *(each.data_ptr() for each in (one_q, one_k, one_v, one_out)),
                        *(stride for pair in strides for stride in pair),
                        one_out.stride(1), one_out.stride(0),
                        kv_heads, heads // kv_heads, tokens, keys, width, int(causal),
                        width**-0.5,
                    )
                ),
                ctypes.c_void_p(room.data_ptr()),
                threads,
            )  # fmt: skip
        return out


def open_many_queries(library: Library, *, amx: bool) -> ManyQueriesKernel | None:
    """Return the kernel; None if the CPU lacks the instructions or may not use them."""
    if library.level < (AMX if amx else AVX512):
        return None
    return ManyQueriesKernel(library, amx=amx)
