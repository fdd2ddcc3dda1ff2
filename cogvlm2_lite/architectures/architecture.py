"""All facts about a model architecture, as one value. No torch.

The mathematics is in `model/`. Everything else that depends on the architecture is a field of
Architecture, which the rest of the program reads as `config.architecture`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from math import prod
from typing import Annotated, Any

from msgspec import Meta

_MOST = 2**24
"""Limit of every size and count in a config.json: 64 times the largest of the 19B model."""
_MOST_LAYERS = 1024
"""Limit of the number of layers: a damaged count must not fill the memory with tensor names."""

Count = Annotated[int, Meta(ge=1, le=_MOST)]
Layers = Annotated[int, Meta(ge=1, le=_MOST_LAYERS)]
TokenId = Annotated[int, Meta(ge=0, le=_MOST)]
TokenIds = Annotated[tuple[TokenId, ...], Meta(min_length=1)]
Epsilon = Annotated[float, Meta(ge=0, le=_MOST)]


class Part(Enum):
    """A group of tensors that the same phases need."""

    VISION = "vision tower"
    PROJECTOR = "projector"
    VISION_EXPERT = "vision expert"
    LANGUAGE_EXPERT = "language expert"
    NORMS = "decoder norms"
    EMBEDDING = "embedding"
    LM_HEAD = "lm_head"


class Phase(Enum):
    """What the engine computes; each phase needs other weights."""

    ENCODE = "encode"  # picture -> image features
    PREFILL_IMAGE = "prefill with picture"
    PREFILL_TEXT = "prefill of text"
    DECODE = "decode"
    LEARN = "learn"  # loss of training samples and its gradients, forward and backward


class Role(Enum):
    """The use of a tensor in the mathematics, which decides how it may be stored."""

    LINEAR = "linear"  # [out_features, in_features], may become NF4 or int8
    CONV = "conv"  # convolution kernels: always 16 bit
    TABLE = "table"  # embeddings, positions, boi, eoi: always 16 bit
    NORM = "norm"  # weights of norms, near 1: always 16 bit
    BIAS = "bias"  # biases, of norms too: always 16 bit
    FREQUENCIES = "frequencies"  # RoPE's inv_freq: always 16 bit


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One tensor that a checkpoint must hold."""

    name: str
    shape: tuple[int, ...]
    part: Part
    role: Role
    block: int | None = None
    """Layer index inside the vision tower or the decoder; None outside of the layers."""
    decodes: bool = False
    """True for a linear that multiplies one row per generated token."""

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def keeps_type(self) -> bool:
        """True for a tensor that is not cast to the compute dtype when it is loaded.

        The embedding is read by rows, which are cast then; inv_freq is cast according to the RoPE
        mode.
        """
        return self.part is Part.EMBEDDING or self.role is Role.FREQUENCIES


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Shape of a vision tower."""

    image_size: Count
    patch_size: Count
    in_channels: Count
    hidden_size: Count
    num_heads: Count
    num_hidden_layers: Layers
    intermediate_size: Count
    layer_norm_eps: Epsilon
    num_positions: Count
    hidden_act: str = "gelu"

    @property
    def grid(self) -> int:
        """Patches along one side of the picture."""
        return self.image_size // self.patch_size

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def image_tokens(self) -> int:
        """Tokens of one picture in the decoder: the 2x2-downsampled grid, boi and eoi."""
        return (self.grid // 2) ** 2 + 2


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and token ids of a whole model, and its architecture."""

    architecture: Architecture = field(repr=False)
    vision: VisionConfig
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Layers
    num_attention_heads: Count
    vocab_size: Count
    max_position_embeddings: Count
    rms_norm_eps: Epsilon
    bos_token_id: TokenId
    eos_token_ids: TokenIds
    pad_token_id: TokenId
    num_multi_query_heads: Count = 8
    hidden_act: str = "silu"
    template_version: str = "chat"

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def qkv_rows(self) -> int:
        """Rows of the fused projection: all query heads, then key heads, then value heads."""
        return (self.num_attention_heads + 2 * self.num_multi_query_heads) * self.head_dim

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of key/value cache per token in a 2-byte type (128 KiB for the 19B model)."""
        return 2 * self.num_hidden_layers * self.num_multi_query_heads * self.head_dim * 2

    def numbers(self) -> dict[str, Any]:
        """Return all fields except the architecture, in a form that JSON can hold."""
        names = [f.name for f in fields(self) if f.name not in ("architecture", "vision")]
        return {"vision": asdict(self.vision), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, kw_only=True)
class Template:
    """The text form of a conversation, as the model was trained on it.

    question  the question, with the placeholder {question}
    past      an earlier turn, with the placeholders {question} and {answer}; "": earlier turns are
              left out
    """

    question: str
    past: str = ""


@dataclass(frozen=True, kw_only=True)
class Released:
    """A released model, so that its memory can be planned before its weights are downloaded.

    word   its name on the command line
    title  its title in a plan, with 4-bit weights from `quantize`
    raw    its config.json, without the entries for remote code
    """

    word: str
    title: str
    raw: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Architecture:
    """All facts about one model architecture that code outside of `model/` depends on.

    name           as config.json has it in its list `architectures`
    parse          returns a checked ModelConfig from the content of config.json; the text names
                   the file. Raises CheckpointError
    tensors        lists every tensor of a checkpoint, in the order in which the model uses them
    phases         the parts that each phase needs
    keep_order     parts in the order in which they stay in memory; a part that is not listed is
                   read by rows from its file
    templates      the prompt templates, by name
    pictures_per_conversation  maximum number of pictures in a conversation
    released       the model whose memory is planned without a folder
    """

    name: str
    parse: Callable[[Architecture, Mapping[str, Any], str], ModelConfig]
    tensors: Callable[[ModelConfig], Iterable[TensorSpec]]
    phases: Mapping[Phase, frozenset[Part]]
    keep_order: tuple[Part, ...]
    templates: Mapping[str, Template]
    pictures_per_conversation: int
    released: Released


def expected_tensors(config: ModelConfig) -> dict[str, TensorSpec]:
    """Return every tensor of a checkpoint by name, in the order in which the model uses them.

    This list determines what a folder must contain, what `quantize` may convert to 4 bits, and
    which phase needs which bytes.
    """
    return {spec.name: spec for spec in config.architecture.tensors(config)}
