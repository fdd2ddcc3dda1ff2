"""The operations of the model that have another implementation on some devices."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.model.causal_attention import CausalAttend
from cogvlm2_lite.model.norms import (
    Normalize,
    fused_rms_norm,
    rms_norm,
    rms_norm_in_parts,
)
from cogvlm2_lite.model.patches import Project, convolved, multiplied
from cogvlm2_lite.model.token_attention import TokenAttend, reference
from cogvlm2_lite.weights.kernels.attention import TokenAttentionKernel


@dataclass(frozen=True, kw_only=True)
class Operations:
    """What the layers compute with. The defaults define the right results.

    rms_norm         norm of the decoder, see norms.py
    token_attention  attention of a single token, see token_attention.py
    several_attention
                     attention of several tokens, see causal_attention.py; None: torch's
    joint_attention  whether the attention of a prompt is one call, see attention.py
    project          the convolutions of a picture, see patches.py
    token_kernel     the C kernel for the attention of the tokens of a decode step; None: they are
                     computed one by one, by token_attention
    own_kernels      whether a single token goes through a block on our CUDA kernels, see
                     token_block.py
    """

    rms_norm: Normalize = rms_norm
    token_attention: TokenAttend = reference
    token_kernel: TokenAttentionKernel | None = None
    several_attention: CausalAttend | None = None
    joint_attention: bool = False
    project: Project = convolved
    own_kernels: bool = False


REFERENCE = Operations()


def choose_operations(
    device: torch.device,
    token_attention: TokenAttend,
    *,
    token_kernel: TokenAttentionKernel | None = None,
    several_attention: CausalAttend | None = None,
    own_kernels: bool = False,
) -> Operations:
    """Return the operations for a device; its kinds of attention are chosen already."""
    backend = backend_of(device)
    return Operations(
        rms_norm=fused_rms_norm if backend.launches_kernels else rms_norm_in_parts,
        token_attention=token_attention,
        token_kernel=token_kernel,
        several_attention=several_attention,
        joint_attention=backend.launches_kernels,
        project=convolved if backend.has_convolutions else multiplied,
        own_kernels=own_kernels,
    )
