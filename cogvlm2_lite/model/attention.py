"""Attention with grouped queries, whose keys and values are never expanded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.model.full_attention import Attend, reference


def grouped_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    single: Attend = reference,
) -> Tensor:
    """Attend with several query heads per key/value head.

    q     [batch, heads, tokens, head_dim]; query head h reads key/value head h // group
    k, v  [batch, kv_heads, keys, head_dim]
    mask  [batch or 1, 1, tokens, keys] bool, True where a key may be seen; None: no mask
    causal  queries and keys are the same tokens, each seeing itself and what stands before it
    single  how a single token attends without a mask, see token_attention.py
    Returns [batch, tokens, heads * head_dim]. Scale head_dim^-0.5.
    """
    batch, heads, tokens, head_dim = q.shape
    kv_heads = k.shape[1]
    grouped = q.view(batch, kv_heads, heads // kv_heads, tokens, head_dim)
    if tokens == 1:
        # The queries of a group stand in for rows of tokens: one pass over the cache for all four.
        queries = grouped.squeeze(3)
        if mask is None:
            out = single(queries, k, v)
        else:
            row_mask = mask.expand(-1, -1, queries.shape[2], -1)
            out = F.scaled_dot_product_attention(queries, k, v, row_mask)
        return out.reshape(batch, 1, heads * head_dim)
    parts = [
        F.scaled_dot_product_attention(member, k, v, mask, is_causal=causal)
        for member in grouped.unbind(2)
    ]
    # [batch, kv_heads, group, tokens, head_dim] -> [batch, tokens, heads * head_dim]
    return torch.stack(parts, dim=2).permute(0, 3, 1, 2, 4).reshape(batch, tokens, -1)


def visible_keys(queries: int, keys: int, key_mask: Tensor | None, device: torch.device) -> Tensor:
    """Return which keys the last `queries` of `keys` tokens may see.

    key_mask  [batch, keys] bool, False for padding; None: no padding
    Returns   [batch or 1, 1, queries, keys] bool. A padding token sees itself, because a row
              without any key has no defined softmax.
    """
    rows = torch.arange(keys - queries, keys, device=device).unsqueeze(1)
    columns = torch.arange(keys, device=device).unsqueeze(0)
    visible = (columns <= rows)[None, None]
    if key_mask is None:
        return visible
    return visible & (key_mask[:, None, None, :] | (columns == rows)[None, None])
