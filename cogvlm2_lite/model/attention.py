"""Grouped-query attention without expanding keys and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.model.causal_attention import CausalAttend
from cogvlm2_lite.model.token_attention import TokenAttend, reference


def grouped_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    single: TokenAttend = reference,
    joint: bool = False,
    several: CausalAttend | None = None,
) -> Tensor:
    """Return the attention output, with several query heads per key/value head.

    q     [batch, heads, tokens, head_dim]; query head h reads key/value head h // group
    k, v  [batch, kv_heads, keys, head_dim]
    mask  [batch or 1, 1, tokens, keys] bool, True where a key may be seen, or what is added to the
          scores in the dtype of q; None: no mask
    causal  the queries belong to the last of the keys; each token attends to itself and to all
            before it. A mask that says the same is needed if there are more keys than queries
    single  attention of a single token, see token_attention.py
    joint   make one call for all query heads of a sequence, not one for each member of a group
    several attention of several tokens if `causal`, see causal_attention.py; None: torch's
    Returns [batch, tokens, heads * head_dim]. Scale head_dim^-0.5.
    """
    batch, heads, tokens, head_dim = q.shape
    kv_heads = k.shape[1]
    # 1. Query heads that share a key/value head form a group.
    grouped = q.view(batch, kv_heads, heads // kv_heads, tokens, head_dim)
    if tokens == 1:
        # 2. Decoding: the queries of a group take the place of tokens, so all of them (four in
        #    the 19B model) need one pass over the cache.
        return single(grouped.squeeze(3), k, v, mask).reshape(batch, 1, heads * head_dim)
    found = several(q, k, v) if several is not None and causal else None
    if found is not None:
        return found
    causal = causal and mask is None  # torch takes one of them
    if joint and batch == 1:
        # 3. Prefill in one call: the members of a group take the place of sequences, which read the
        #    same keys. torch's enable_gqa would do, too, but not in the memory-efficient kernel on
        #    AMD's GPUs (sdp_utils.cpp).
        members = grouped[0].transpose(0, 1)
        keys, values = (each.expand(members.shape[0], -1, -1, -1) for each in (k, v))
        out = F.scaled_dot_product_attention(members, keys, values, mask, is_causal=causal)
        # [group, kv_heads, tokens, head_dim] -> [1, tokens, heads * head_dim]
        return out.permute(2, 1, 0, 3).reshape(1, tokens, -1)
    # 4. Prefill: one call for the n-th query heads of all groups, with the keys as they are.
    parts = [
        F.scaled_dot_product_attention(member, k, v, mask, is_causal=causal)
        for member in grouped.unbind(2)
    ]
    # [batch, kv_heads, group, tokens, head_dim] -> [batch, tokens, heads * head_dim]
    return torch.stack(parts, dim=2).permute(0, 3, 1, 2, 4).reshape(batch, tokens, -1)


def visible_keys(queries: int, keys: int, key_mask: Tensor | None, device: torch.device) -> Tensor:
    """Return which keys the last `queries` of `keys` tokens may attend to.

    key_mask  [batch, keys] bool, False for padding; None: no padding
    Returns   [batch or 1, 1, queries, keys] bool. A padding token attends to itself, because the
              softmax of a row without any key is undefined.
    """
    rows = torch.arange(keys - queries, keys, device=device).unsqueeze(1)
    columns = torch.arange(keys, device=device).unsqueeze(0)
    visible = (columns <= rows)[None, None]
    if key_mask is None:
        return visible
    return visible & (key_mask[:, None, None, :] | (columns == rows)[None, None])
