"""Decide how every tensor is stored and where its bytes go, before any of them is computed.

This is a pure function: headers and settings in; names, types, shapes, files and offsets out. The
same source and settings always give the same recipe, which makes a conversion resumable.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from math import gcd
from types import MappingProxyType
from typing import Any

from cogvlm2_lite.architectures.architecture import Part, Role
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.text import Text, join
from cogvlm2_lite.weights.catalog import INT8_GROUP, NF4_GROUP, Catalog, StoredTensor
from cogvlm2_lite.weights.writer import HEADER_ALIGNMENT, PlannedPiece, ShardLayout
from quantize.budget import ByteBudget

NESTED_GROUP = 256
"""Scales that share one scale under double quantization, as in bitsandbytes."""

KINDS = {"bf16": "dense", "nf4": "nf4", "int8": "int8"}
"""Name of a storage kind in options -> name in the catalog."""

TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Type in a safetensors file -> name in transformers, for 16-bit and 32-bit checkpoints."""

TO_NF4, TO_SAME, TO_BF16 = "nf4", "same", "bf16"
"""What becomes of linear matrices: 4 bits; what they are in the source; 16 bits."""

AUTO, BY_BUDGET = "auto", "budget"
"""Storage of lm_head: 16 bits unless the budget is smaller; what the budget chooses."""

UNIFORM, BY_GRADIENT = "none", "gradient"
"""How much the tokens of samples count: all alike, or by `calibration/token_weights.py`."""
DEFAULT_TOKEN_WEIGHTS = UNIFORM

CPU_TARGET, GPU_TARGET = "cpu", "gpu"
"""What the result will run on."""

_ROLES = (
    "weight", "quant_map", "nested_quant_map", "nested_absmax", "absmax", "quant_state", "scale",
)  # fmt: skip
"""The order of the pieces of a copied tensor: 4-byte types come first, so they are aligned."""

_LONGEST_NUMBER = 24
"""Characters of the longest float64 as JSON, such as -2.2250738585072014e-308."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """One `--keep PATTERN=KIND`: linear matrices that are not stored in NF4."""

    pattern: str
    """A part ("vision-tower") or a tensor name with wildcards ("model.layers.0.*")."""
    kind: str
    """"bf16" or "int8"."""


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Every option that affects the bytes of the result."""

    double_quant: bool = True
    lm_head: str = "bf16"
    """"bf16", "nf4", "int8", BY_BUDGET or AUTO (see `choose_head`)."""
    keep: tuple[Keep, ...] = ()
    """Later ones take precedence over earlier ones, and over lm_head."""
    budget: ByteBudget | None = None
    """Bytes that may be spent to store matrices in more than NF4; None: no additional bytes."""
    target: str = CPU_TARGET
    """What the result will run on; a budget chooses no int8 for GPU_TARGET."""
    calibration: str = ""
    """Short description of what the rounding was fitted to; empty for round to nearest."""
    shard_bytes: int = 5 * 10**9
    """Largest size of a file; a tensor that is larger gets a file of its own."""
    matrices: str = TO_NF4
    """TO_NF4, or for `merge` TO_SAME or TO_BF16; with these only `keep` and `shard_bytes` count."""

    @property
    def merges(self) -> bool:
        """Whether the result has the storage kinds of the source, or 16 bits."""
        return self.matrices != TO_NF4

    @property
    def upgrade_kinds(self) -> tuple[str, ...]:
        """Storage kinds that a budget may choose instead of NF4.

        No kernel for a GPU multiplies int8: each product makes the matrix a 16-bit one first, and
        moves 5 bytes per weight, where NF4 moves half a byte and 16 bits two.
        """
        return ("dense",) if self.target == GPU_TARGET else ("int8", "dense")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as they are written to the manifest and job.json."""
        if self.merges:
            return {
                "merge_to": self.matrices,
                "keep": [f"{k.pattern}={k.kind}" for k in self.keep],
                "shard_bytes": self.shard_bytes,
            }
        return {
            "rounding": f"calibrated: {self.calibration}" if self.calibration else "nearest",
            "double_quant": self.double_quant,
            "lm_head": self.lm_head,
            "keep": [f"{k.pattern}={k.kind}" for k in self.keep],
            **({"budget": self.budget.text} if self.budget else {}),
            **({"target": self.target} if self.budget and self.target != CPU_TARGET else {}),
            "shard_bytes": self.shard_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class PlannedTensor:
    """One tensor of the source, and how it will be stored."""

    source: StoredTensor
    kind: str
    """"dense", "nf4" or "int8"."""
    pieces: Mapping[str, PlannedPiece]
    """By role (as in the catalog), in file order; "weight" is first in an NF4 or dense tensor."""
    reason: str = ""
    """Why a linear matrix is not stored in NF4; empty for NF4 and for other tensors."""
    touched: bool = False
    """Whether an adapter is added to it."""

    @property
    def copied(self) -> bool:
        """Whether all bytes are those of the source."""
        same = self.kind == self.source.kind and not self.touched
        return same and self.pieces["weight"].dtype == self.source.dtype

    @property
    def name(self) -> str:
        return self.source.spec.name

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces.values())


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """One file of the result."""

    name: str
    tensors: tuple[PlannedTensor, ...]
    """In file order."""

    @cached_property
    def layout(self) -> ShardLayout:
        """The header and offsets of the file."""
        return ShardLayout(pieces=tuple(p for t in self.tensors for p in t.pieces.values()))


@dataclass(frozen=True, kw_only=True)
class PartBytes:
    """The size of one part of the model before and after."""

    part: Part
    weights: int
    source_bytes: int
    result_bytes: int
    kinds: Mapping[str, int]
    """Linear matrices by storage kind."""

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.result_bytes / self.weights


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The whole result, byte for byte, except for the numbers themselves."""

    catalog: Catalog
    settings: QuantizeOptions
    shards: tuple[PlannedShard, ...]

    @property
    def tensors(self) -> Iterator[PlannedTensor]:
        """Every tensor in the order in which it will be written."""
        return (tensor for shard in self.shards for tensor in shard.tensors)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all safetensors files, headers included."""
        return sum(shard.layout.size for shard in self.shards)

    @cached_property
    def weights(self) -> int:
        """Number of weights of all tensors."""
        return sum(tensor.source.spec.numel for tensor in self.tensors)

    @property
    def source_dtype(self) -> str:
        """Type of the linear matrices, before they are quantized, by its name in transformers."""
        linears = (t for t in self.tensors if t.source.spec.role is Role.LINEAR)
        types = Counter(_dense_dtype(t.source, self.settings) for t in linears)
        return TORCH_NAMES[types.most_common(1)[0][0]]

    def by_part(self) -> list[PartBytes]:
        """Return the rows of the table shown before the work starts, in the model's order."""
        rows = []
        for part in Part:
            tensors = [t for t in self.tensors if t.source.spec.part is part]
            linears = (t for t in tensors if t.source.spec.role is Role.LINEAR)
            rows.append(
                PartBytes(
                    part=part,
                    weights=sum(t.source.spec.numel for t in tensors),
                    source_bytes=sum(t.source.nbytes for t in tensors),
                    result_bytes=sum(t.nbytes for t in tensors),
                    kinds=dict(Counter(t.kind for t in linears)),
                )
            )
        return rows

    def kept(self) -> list[PlannedTensor]:
        """Return the linear matrices that are not stored in NF4."""
        return [t for t in self.tensors if t.reason]


def choose_head(catalog: Catalog, settings: QuantizeOptions) -> QuantizeOptions:
    """Return the settings with a storage of lm_head where they have AUTO.

    lm_head stays in 16 bits, as other programs store it. A budget that is smaller than that needs
    chooses it: it is a fifth of what a token reads.
    """
    if settings.lm_head != AUTO:
        return settings
    dense, budget = replace(settings, lm_head="bf16"), settings.budget
    if budget is None or budget.share is not None:
        return dense
    recipe = make_recipe(catalog, dense)
    fits = budget.allows(recipe.nbytes, recipe.weights)
    return dense if fits else replace(settings, lm_head=BY_BUDGET)


def make_recipe(
    catalog: Catalog,
    settings: QuantizeOptions,
    upgrades: Mapping[str, str] = MappingProxyType({}),
    touched: Collection[str] = (),
) -> Recipe:
    """Return storage kinds, files and offsets for all tensors.

    upgrades  matrices for which a budget replaces NF4: name -> storage kind
    touched   matrices that an adapter changes
    Raises UsageError for a pattern that matches no linear matrix; a merge stores only matrices that
    the adapter changes in another way.
    """
    if settings.merges and settings.keep:
        _check_keeps(catalog, settings)
    for keep in settings.keep:
        _check_pattern(keep, catalog, touched if settings.merges else None)
    planned = [
        _plan_tensor(tensor, settings, upgrades, touched=name in touched)
        for name, tensor in catalog.tensors.items()
    ]
    groups = list(_fill_shards(planned, settings.shard_bytes))
    shards = (
        PlannedShard(name=f"model-{i:05d}-of-{len(groups):05d}.safetensors", tensors=_align(group))
        for i, group in enumerate(groups, 1)
    )
    return Recipe(catalog=catalog, settings=settings, shards=tuple(shards))


# --- storage kinds --------------------------------------------------------------------------------


def part_slug(part: Part) -> str:
    """Return the name of a part in `--keep`: vision-tower, lm-head."""
    return part.value.replace(" ", "-").replace("_", "-")


def _matches(pattern: str, tensor: StoredTensor) -> bool:
    name = tensor.spec.name
    return pattern == part_slug(tensor.spec.part) or any(
        fnmatchcase(n, pattern) for n in (name, name.removesuffix(".weight"))
    )


def _check_keeps(catalog: Catalog, settings: QuantizeOptions) -> None:
    """Raise UsageError if a merge writes a 16-bit folder, where `keep` means nothing."""
    if settings.matrices == TO_BF16 or all(t.kind == "dense" for t in catalog.tensors.values()):
        raise UsageError(
            "--keep needs a 4-bit result; this one has 16 bits.",
            hint="Leave --keep out.",
            param="keep",
        )


def _check_pattern(keep: Keep, catalog: Catalog, among: Collection[str] | None) -> None:
    linears = [t for t in catalog.tensors.values() if t.spec.role is Role.LINEAR]
    if among is not None:
        linears = [t for t in linears if t.spec.name in among]
    if any(_matches(keep.pattern, tensor) for tensor in linears):
        return
    known = {part_slug(t.spec.part) for t in linears} | {t.spec.name for t in linears}
    close = difflib.get_close_matches(keep.pattern, known, n=1)
    parts = ", ".join(dict.fromkeys(part_slug(t.spec.part) for t in linears))
    meant = Text("Did you mean {name}?", name=close[0]) if close else Text()
    hint = Text("Use a part ({names}) or a tensor name with * in it.", names=parts)
    raise UsageError(
        "--keep {pattern}={kind} matches none of the {count} linear matrices."
        if among is None
        else "--keep {pattern}={kind} matches none of the {count} matrices of the adapter.",
        hint=join(meant, hint),
        param="keep",
        pattern=keep.pattern,
        kind=keep.kind,
        count=len(linears),
    )


def _choose(
    tensor: StoredTensor, settings: QuantizeOptions, upgrades: Mapping[str, str], *, touched: bool
) -> tuple[str, str]:
    """Return the storage kind of a tensor, and the reason if a linear matrix is not NF4."""
    spec = tensor.spec
    if spec.role is not Role.LINEAR or settings.matrices == TO_BF16:
        return "dense", ""
    if settings.merges:
        return _choose_merged(tensor, settings) if touched else (tensor.kind, "")
    if spec.name in upgrades:
        return upgrades[spec.name], f"--budget {settings.budget.text if settings.budget else ''}"
    word, reason = "nf4", ""
    if spec.part is Part.LM_HEAD:
        word = "nf4" if settings.lm_head == BY_BUDGET else settings.lm_head
        reason = f"--lm-head {word}"
    for keep in settings.keep:
        if _matches(keep.pattern, tensor):
            word, reason = keep.kind, f"--keep {keep.pattern}={keep.kind}"
    if KINDS[word] == "nf4":
        reason = ""
    return _if_it_fits(tensor, KINDS[word], reason)


def _choose_merged(tensor: StoredTensor, settings: QuantizeOptions) -> tuple[str, str]:
    """Return the storage kind of a matrix with an adapter in it, and why it is not the source's."""
    kind, reason = tensor.kind, ""
    if kind == "fp4":
        kind, reason = "nf4", Text("FP4 can be read, not written")
    for keep in settings.keep:
        if _matches(keep.pattern, tensor):
            kind, reason = KINDS[keep.kind], f"--keep {keep.pattern}={keep.kind}"
    return _if_it_fits(tensor, kind, reason)


def _if_it_fits(tensor: StoredTensor, kind: str, reason: str) -> tuple[str, str]:
    """Return the kind, or "dense" for a matrix whose rows are not whole groups."""
    columns, group = tensor.spec.shape[1], NF4_GROUP if kind == "nf4" else INT8_GROUP
    if kind != "dense" and columns % group:
        # A group would cross the end of a row, which no kernel accepts, neither ours nor others.
        reason = "its {count} columns are not a multiple of {size}"
        return "dense", Text(reason, count=columns, size=group)
    return kind, reason


# --- pieces of a tensor ---------------------------------------------------------------------------


def _dense_dtype(tensor: StoredTensor, settings: QuantizeOptions) -> str:
    """Return the type of a tensor that is stored dense: its own, or that before it was quantized.

    A merge dequantizes to 16 bits at most, and TO_BF16 also rounds float32.
    """
    if tensor.kind == "dense" and not (settings.matrices == TO_BF16 and tensor.dtype == "F32"):
        return tensor.dtype
    return "F16" if tensor.quant is not None and tensor.quant.dtype == "float16" else "BF16"


def quant_state_text(tensor: StoredTensor, *, nested_offset: float | None) -> str:
    """Return the JSON in which bitsandbytes describes an NF4 matrix, in its order of keys.

    nested_offset   mean of the scales under double quantization; None without it
    """
    state: dict[str, Any] = {
        "quant_type": "nf4",
        "blocksize": NF4_GROUP,
        "dtype": TORCH_NAMES[tensor.dtype] if tensor.quant is None else tensor.quant.dtype,
        "shape": list(tensor.spec.shape),
    }
    if nested_offset is not None:
        state |= {
            "nested_blocksize": NESTED_GROUP,
            "nested_dtype": "float32",
            "nested_offset": nested_offset,
        }
    return json.dumps(state)


def piece_name(tensor: str, role: str, kind: str = "nf4") -> str:
    """Return the name in the file of one piece of a tensor of a storage kind."""
    if role == "weight":
        return tensor
    # transformers' name of the piece that describes how a 4-bit matrix was quantized
    return f"{tensor}.{f'quant_state.bitsandbytes__{kind}' if role == 'quant_state' else role}"


def _plan_tensor(
    tensor: StoredTensor, settings: QuantizeOptions, upgrades: Mapping[str, str], *, touched: bool
) -> PlannedTensor:
    kind, reason = _choose(tensor, settings, upgrades, touched=touched)
    if kind == "dense":
        form = {"weight": (_dense_dtype(tensor, settings), tensor.spec.shape)}
        pieces = _pieces(tensor, form)
    elif kind == tensor.kind and not touched:
        stored = {role: tensor.pieces[role] for role in _ROLES if role in tensor.pieces}
        copied = {role: (piece.dtype, piece.shape) for role, piece in stored.items()}
        pieces = _pieces(tensor, copied, kind)
    else:
        nested = settings.double_quant if tensor.quant is None else tensor.quant.nested
        pieces = _pieces_of(tensor, kind, nested)
    return PlannedTensor(source=tensor, kind=kind, pieces=pieces, reason=reason, touched=touched)


def planned_bytes(tensor: StoredTensor, kind: str, *, double_quant: bool = True) -> int:
    """Return the bytes of a tensor in a storage kind."""
    return sum(piece.nbytes for piece in _pieces_of(tensor, kind, double_quant).values())


def _pieces_of(tensor: StoredTensor, kind: str, double_quant: bool) -> dict[str, PlannedPiece]:
    if kind == "nf4":
        return _nf4_pieces(tensor, double_quant)
    if kind == "int8":
        return _int8_pieces(tensor)
    return _pieces(tensor, {"weight": (tensor.dtype, tensor.spec.shape)})


def _pieces(
    tensor: StoredTensor, parts: Mapping[str, tuple[str, tuple[int, ...]]], kind: str = "nf4"
) -> dict[str, PlannedPiece]:
    name = tensor.spec.name
    return {
        role: PlannedPiece(name=piece_name(name, role, kind), dtype=dtype, shape=shape)
        for role, (dtype, shape) in parts.items()
    }


def _nf4_pieces(tensor: StoredTensor, double_quant: bool) -> dict[str, PlannedPiece]:
    """Return the pieces of an NF4 matrix as transformers stores them, with 4-byte types aligned.

    Only one value is not known yet: nested_offset, which is text inside quant_state. Trailing
    spaces give that piece a fixed length, and make the whole tensor a multiple of 64 bytes.
    """
    groups = tensor.spec.numel // NF4_GROUP
    parts = {"weight": ("U8", (tensor.spec.numel // 2, 1)), "quant_map": ("F32", (16,))}
    if double_quant:
        parts["nested_quant_map"] = ("F32", (256,))
        parts["nested_absmax"] = ("F32", (-(-groups // NESTED_GROUP),))
    parts["absmax"] = ("U8" if double_quant else "F32", (groups,))
    pieces = _pieces(tensor, parts)
    text = quant_state_text(tensor, nested_offset=0.0 if double_quant else None)
    longest = len(text) - len("0.0") + _LONGEST_NUMBER
    length = longest + -(sum(p.nbytes for p in pieces.values()) + longest) % HEADER_ALIGNMENT
    return pieces | _pieces(tensor, {"quant_state": ("U8", (length,))})


def _int8_pieces(tensor: StoredTensor) -> dict[str, PlannedPiece]:
    """Return the pieces of an int8 matrix, which is our own storage kind."""
    rows, columns = tensor.spec.shape
    scale = (rows, columns // INT8_GROUP)
    return _pieces(tensor, {"weight": ("I8", (rows, columns)), "scale": ("F32", scale)})


# --- files ----------------------------------------------------------------------------------------


def _fill_shards(
    tensors: Iterable[PlannedTensor], limit: int
) -> Iterator[tuple[PlannedTensor, ...]]:
    """Split the tensors, in the model's order, into groups of at most `limit` bytes."""
    group: list[PlannedTensor] = []
    filled = 0
    for tensor in tensors:
        if group and filled + tensor.nbytes > limit:
            yield tuple(group)
            group, filled = [], 0
        group.append(tensor)
        filled += tensor.nbytes
    yield tuple(group)


def _align(tensors: tuple[PlannedTensor, ...]) -> tuple[PlannedTensor, ...]:
    """Move tensors of odd sizes to the end, so that every piece is aligned for its type.

    Readers view the bytes of a file as numbers in place. All sizes of the released model are
    multiples of 64, so their order does not change.
    """
    return tuple(sorted(tensors, key=lambda t: -gcd(t.nbytes, HEADER_ALIGNMENT)))
