"""The interface of attention in which each token sees the tokens before it, for prefill."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

CausalAttend = Callable[[Tensor, Tensor, Tensor], Tensor | None]
"""Returns the attention of several tokens, [batch, tokens, heads * head_dim], scale head_dim^-0.5:

q     [batch, heads, tokens, head_dim]; query head h reads key/value head h // group
k, v  [batch, kv_heads, keys, head_dim]; the queries belong to the last of these tokens

None: not supported; nothing was computed.
"""
