"""The tensors of a model folder, read from headers alone and checked against the architecture.

The storage kind of a matrix follows from its companion tensors, never from a file name:

dense   X.weight                     F32, F16 or BF16 in the shape of the architecture
nf4     (the layout that transformers writes with bitsandbytes)
        X.weight                     two 4-bit codes per byte, first code in the high half; rows one
                                     after another, [numel / 2, 1] U8 (or the same bytes declared as
                                     F16, BF16 or F32: `quant_storage` in transformers)
        X.weight.absmax              one scale per group: F32 [groups]; U8 [groups] when the scales
                                     are quantized themselves
        X.weight.quant_map           F32 [16], the value of each code
        X.weight.nested_absmax       F32 [groups / 256, rounded up]; quantized scales only
        X.weight.nested_quant_map    F32 [256]; quantized scales only
        X.weight.quant_state.bitsandbytes__nf4    U8, a JSON object (see _read_quant)
fp4     the same with other values in quant_map and the name ending in __fp4; the released int4
        folders are of this kind
int8    (specific to this project, so it is accepted only with our manifest in the folder)
        X.weight                     I8 [rows, columns], value = code * scale
        X.weight.scale               F32 [rows, columns / 64, rounded up]: 64 columns of one row
                                     share a scale

No torch here: the memory plan and `doctor` need a catalog and must start fast.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cogvlm2_lite.architectures.architecture import (
    ModelConfig,
    Part,
    Role,
    TensorSpec,
    expected_tensors,
)
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.folders.contents import HEAD_BYTES, wrong_content
from cogvlm2_lite.folders.downloads import refuse_unfinished
from cogvlm2_lite.folders.explain import (
    DOWNLOAD,
    INDEX_NAME,
    SINGLE_NAME,
    explain_missing,
    explain_no_weights,
    listed,
)
from cogvlm2_lite.text import Text, join
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.header import (
    Piece,
    Shard,
    parse_json_object,
    printable,
    read_shard,
)
from cogvlm2_lite.weights.manifest import MANIFEST_NAME

NF4_GROUP = 64
"""Weights that share one scale in an NF4 matrix that `quantize` writes; bitsandbytes' default."""
INT8_GROUP = 64
"""Columns of one row that share a scale in an int8 matrix."""
GROUPS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Weights per scale that bitsandbytes supports."""

_MAX_INDEX_BYTES = 16 * MIB
_MAX_QUANT_STATE_BYTES = 4096
_MOST_PROBLEMS = 8
"""Files named in one error."""
_FLOATS = frozenset({"F32", "F16", "BF16"})
_STATE = "quant_state"
_STATE_SUFFIXES = {
    "quant_state.bitsandbytes__nf4": "nf4",
    "quant_state.bitsandbytes__fp4": "fp4",
}
_COMPANION_ROLES = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", "scale")
_SOURCE_DTYPES = frozenset({"float32", "float16", "bfloat16"})
_STATE_KEYS = frozenset(
    {"quant_type", "blocksize", "dtype", "shape"}
    | {"nested_blocksize", "nested_dtype", "nested_offset"}
)
_ANOTHER = "This folder was written by another program or for another model."
_MIXED = "The folder mixes files of two models. Download it again into an empty one."
_VERSIONS = "Index and files are of different versions. Download the folder again."


@dataclass(frozen=True, kw_only=True)
class QuantInfo:
    """How a 4-bit matrix was quantized, from its quant_state tensor."""

    quant_type: str
    """"nf4" or "fp4"."""
    group: int
    """Weights that share one scale."""
    dtype: str
    """Type of the matrix before quantization: "float32", "float16" or "bfloat16"."""
    nested: bool
    """True if the scales are 8-bit codes themselves (double quantization)."""
    nested_group: int = 256
    nested_offset: float = 0.0
    """Mean of the scales; added after their codes are looked up."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor of the architecture, and the tensors of the files that store it."""

    spec: TensorSpec
    kind: str
    """Storage kind: "dense", "nf4", "fp4" or "int8"."""
    pieces: Mapping[str, Piece]
    """By role: "weight", "absmax", "quant_map", "nested_absmax", "nested_quant_map",
    "quant_state", "scale"."""
    quant: QuantInfo | None = None
    """Only for nf4 and fp4."""

    @property
    def nbytes(self) -> int:
        """Bytes in the files, companions included."""
        return sum(piece.nbytes for piece in self.pieces.values())

    @property
    def dtype(self) -> str:
        """File type of the "weight" piece, a key of header.DTYPE_BYTES."""
        return self.pieces["weight"].dtype


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Every tensor of one model folder: complete, in bounds, and of the right shape."""

    folder: Path
    config: ModelConfig
    tensors: Mapping[str, StoredTensor]
    """By name, in the order of expected_tensors."""
    shards: tuple[Shard, ...]

    @classmethod
    def open(cls, folder: Path, config: ModelConfig) -> Catalog:
        """Read and check the headers of all safetensors files of a folder.

        Raises CheckpointError, with the tensor or file and the numbers, if anything is missing,
        extra, duplicate, out of bounds, of another shape or type, or not safetensors at all.
        """
        files, promised = _layout(folder)
        shards = _read_shards(folder, files)
        found = _merge(shards)
        _check_index(promised, shards)
        tensors = _assemble(found, expected_tensors(config))
        _check_manifest(folder, tensors)
        return cls(folder=folder, config=config, tensors=MappingProxyType(tensors), shards=shards)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in the files."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def bytes_by_part(self) -> dict[Part, int]:
        """Return the stored bytes of each part, companions included."""
        sums = dict.fromkeys(Part, 0)
        for tensor in self.tensors.values():
            sums[tensor.spec.part] += tensor.nbytes
        return sums

    def fingerprint(self) -> str:
        """Return a sha256 over the config numbers, all headers and all file sizes.

        It differs for folders of different content as far as headers show it. It does not depend on
        the path of the folder.
        """
        content = {
            "config": self.config.numbers(),
            "shards": [[s.file.name, s.size, s.header_sha256] for s in self.shards],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- which files ----------------------------------------------------------------------------------


def _layout(folder: Path) -> tuple[list[Path], Mapping[str, str] | None]:
    """Return a folder's safetensors files, sorted by name, and the weight map of its index."""
    if not folder.is_dir():
        raise CheckpointError("{folder} is not a folder.", folder=folder)
    index, single = folder / INDEX_NAME, folder / SINGLE_NAME
    promised = _weight_map(index) if index.exists() else None
    names = sorted(set(promised.values())) if promised else [SINGLE_NAME]
    if promised is None and not single.exists():
        raise explain_no_weights(folder)
    if SINGLE_NAME not in names and single.exists():
        raise CheckpointError(
            "{folder} has {single} and a {index} that does not name it, so it is "
            "unclear which weights count.",
            hint="Keep one of the two models in this folder.",
            folder=folder,
            single=SINGLE_NAME,
            index=INDEX_NAME,
        )
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise explain_missing(folder, missing, len(names))
    for name in names:
        _refuse_escape(folder, name)
        refuse_unfinished(folder / name)
    return [folder / name for name in names], promised


def _read_shards(folder: Path, files: Sequence[Path]) -> tuple[Shard, ...]:
    """Return the headers of all files; the error names every file that can't be used."""
    shards, errors = [], []
    for file in files:
        try:
            shards.append(read_shard(file))
        except CheckpointError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise CheckpointError(
            "{folder} has files that can't be used: {count} of {total}. {problems}",
            hint=errors[0].hint,
            folder=folder,
            count=len(errors),
            total=len(files),
            problems=join(*(error.message for error in errors[:_MOST_PROBLEMS])),
        )
    return tuple(shards)


def _weight_map(index: Path) -> dict[str, str]:
    """Return the index: tensor name to shard name, each a file name without a path."""
    try:
        if not index.is_file() or index.stat().st_size > _MAX_INDEX_BYTES:
            raise CheckpointError(
                "{file} is not an index: not a file, or more than 16 MiB.", file=index
            )
        raw = index.read_bytes()
        if found := wrong_content(index, raw[:HEAD_BYTES], len(raw)):
            raise found
    except OSError as error:
        raise CheckpointError(
            "{file} can't be read: {why}.", file=index, why=error.strerror or error
        ) from error
    weight_map = parse_json_object(raw, where=str(index)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("{file} has no weight_map.", hint=DOWNLOAD, file=index)
    for name in set(map(str, weight_map.values())):
        # A name with a separator, a drive or a stream could point anywhere on this machine.
        plain = name.endswith(".safetensors") and name.isprintable() and len(name) < 256
        if not plain or name.startswith(".") or any(c in name for c in '/\\:*?"<>|'):
            raise CheckpointError(
                "{file} names the file {name!r}; only plain .safetensors file names inside the "
                "folder are allowed.",
                hint="This index is damaged or was made to read other files. Don't use it.",
                file=index,
                name=printable(name),
            )
    return weight_map


def _refuse_escape(folder: Path, name: str) -> None:
    """Reject a link out of the folder, except inside a model's folder of a Hugging Face cache."""
    real_folder = folder.resolve()
    target = (folder / name).resolve()
    allowed = target.parent == real_folder
    if real_folder.parent.name == "snapshots":
        entry = real_folder.parent.parent
        inside = entry if entry.name.startswith("models--") else entry / "blobs"
        allowed = allowed or target.is_relative_to(inside)
    if not allowed:
        raise CheckpointError(
            "{file} is a link to a file outside of the folder.",
            hint="Copy the file itself into the folder.",
            file=folder / name,
        )


# --- all tensors, once ----------------------------------------------------------------------------


def _merge(shards: Iterable[Shard]) -> dict[str, Piece]:
    """Return the tensors of all shards; raises CheckpointError if two shards have the same name."""
    found: dict[str, Piece] = {}
    for shard in shards:
        twice = sorted(found.keys() & shard.pieces.keys())
        if twice:
            raise CheckpointError(
                "{file} has tensors that are in {other} too: {count} ({names}).",
                hint=_MIXED,
                count=len(twice),
                names=listed(twice),
                file=shard.file.name,
                other=found[twice[0]].file.name,
            )
        found.update(shard.pieces)
    return found


def _check_index(promised: Mapping[str, str] | None, shards: Iterable[Shard]) -> None:
    """Raise CheckpointError if the index does not agree with the shards."""
    if promised is None:
        return
    actual = {name: shard.file.name for shard in shards for name in shard.pieces}
    wrong = [name for name, file in promised.items() if actual.get(name) != file]
    if wrong:
        raise CheckpointError(
            "{index} lists tensors in {file} ({names}), but {tensor} is in {other}."
            if wrong[0] in actual
            else "{index} lists tensors in {file} ({names}), but no file has {tensor}.",
            hint=_VERSIONS,
            index=INDEX_NAME,
            tensor=wrong[0],
            file=promised[wrong[0]],
            other=actual.get(wrong[0], ""),
            names=listed(wrong),
        )
    extra = sorted(actual.keys() - promised.keys())
    if extra:
        raise CheckpointError(
            "{file} has tensors that {index} does not list: {count} ({names}).",
            hint=_VERSIONS,
            file=actual[extra[0]],
            count=len(extra),
            names=listed(extra),
            index=INDEX_NAME,
        )


def _assemble(
    found: Mapping[str, Piece], expected: Mapping[str, TensorSpec]
) -> dict[str, StoredTensor]:
    """Assign all pieces to their tensors, and check and return these."""
    companions, extra = _companions(found, expected)
    if extra:
        raise CheckpointError(
            "The folder has tensors that this CogVLM2 model does not have: {count} ({names}).",
            hint="This is another model, or its config.json does not belong to these weights.",
            count=len(extra),
            names=listed(extra),
        )
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(
            "The folder lacks tensors: {missing} of {count} ({names}).",
            hint=DOWNLOAD,
            missing=len(missing),
            count=len(expected),
            names=listed(missing),
        )
    blobs = _read_states({n: c[_STATE][1] for n, c in companions.items() if _STATE in c})
    return {
        name: _stored(spec, found[name], companions.get(name, {}), blobs.get(name))
        for name, spec in expected.items()
    }


_Companions = Mapping[str, tuple[str, Piece]]
"""Role to (suffix in the file, piece) of the companions of one matrix."""


def _companions(
    found: Mapping[str, Piece], expected: Mapping[str, TensorSpec]
) -> tuple[dict[str, dict[str, tuple[str, Piece]]], list[str]]:
    """Return the companions of each matrix by role, and the names that belong to no matrix."""
    companions: dict[str, dict[str, tuple[str, Piece]]] = {}
    extra = []
    for name in found.keys() - expected.keys():
        owner, role, suffix = _split(name)
        spec = expected.get(owner)
        if spec is None or spec.role is not Role.LINEAR or not role:
            extra.append(name)
        elif role in companions.setdefault(owner, {}):
            raise CheckpointError(
                "{tensor} has two {role} tensors.", hint=_MIXED, tensor=owner, role=role
            )
        else:
            companions[owner][role] = (suffix, found[name])
    return companions, sorted(extra)


def _split(name: str) -> tuple[str, str, str]:
    """Split a companion's name into owner, role and suffix; role is "" if it is no companion."""
    for suffix in _STATE_SUFFIXES:
        if name.endswith(f".{suffix}"):
            return name.removesuffix(f".{suffix}"), _STATE, suffix
    owner, _, suffix = name.rpartition(".")
    return owner, suffix if suffix in _COMPANION_ROLES else "", suffix


def _check_manifest(folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Reject int8 codes without a manifest: other programs use these names with other scales."""
    int8 = [name for name, tensor in tensors.items() if tensor.kind == "int8"]
    if int8 and not (folder / MANIFEST_NAME).is_file():
        raise CheckpointError(
            "The folder has int8 tensors ({count}: {names}), but no {file}, which says how to read "
            "them.",
            hint="Copy {file} from where the weights came from.",
            count=len(int8),
            names=listed(int8),
            file=MANIFEST_NAME,
        )


# --- one tensor -----------------------------------------------------------------------------------


def _stored(
    spec: TensorSpec, weight: Piece, companions: _Companions, blob: bytes | None
) -> StoredTensor:
    """Determine the storage kind of one tensor and check its pieces."""
    pieces = {"weight": weight, **{role: piece for role, (_, piece) in companions.items()}}
    if not companions:
        _expect(spec.name, weight, _FLOATS, spec.shape)
        return StoredTensor(spec=spec, kind="dense", pieces=pieces)
    if _STATE in companions and blob is not None:
        kind = _STATE_SUFFIXES[companions[_STATE][0]]
        quant = _read_quant(spec, kind, blob, nested="nested_absmax" in companions)
        _check_four_bit(spec, pieces, quant)
        return StoredTensor(spec=spec, kind=kind, pieces=pieces, quant=quant)
    if set(companions) == {"scale"}:
        rows, columns = spec.shape
        _expect(spec.name, weight, {"I8"}, spec.shape)
        _expect(f"{spec.name}.scale", pieces["scale"], {"F32"}, (rows, -(-columns // INT8_GROUP)))
        return StoredTensor(spec=spec, kind="int8", pieces=pieces)
    raise CheckpointError(
        "{tensor} comes with {names}, but without a quant_state that says how it was quantized.",
        hint="Only 4-bit weights in the layout of transformers with bitsandbytes can be read.",
        tensor=spec.name,
        names=", ".join(sorted(companions)),
    )


def _check_four_bit(spec: TensorSpec, pieces: Mapping[str, Piece], quant: QuantInfo) -> None:
    """Check that a 4-bit matrix has exactly the companions it needs, with the right shapes."""
    groups = -(-spec.numel // quant.group)
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "absmax": ("U8" if quant.nested else "F32", (groups,)),
        "quant_map": ("F32", (16,)),
    }
    if quant.nested:
        wanted["nested_absmax"] = ("F32", (-(-groups // quant.nested_group),))
        wanted["nested_quant_map"] = ("F32", (256,))
    have = pieces.keys() - {"weight", _STATE}
    if have != wanted.keys():
        raise CheckpointError(
            "{tensor} must come with {expected}, but has {found}.",
            hint=_MIXED,
            tensor=spec.name,
            expected=", ".join(sorted(wanted)),
            found=", ".join(sorted(have)) or Text("none"),
        )
    for role, (dtype, shape) in wanted.items():
        _expect(f"{spec.name}.{role}", pieces[role], {dtype}, shape)
    weight = pieces["weight"]
    packed = -(-spec.numel // 2)
    if weight.nbytes != packed or weight.dtype == "I8":
        raise CheckpointError(
            "{tensor} has {size} bytes of {dtype}; 4-bit codes of shape {shape} need {expected}.",
            hint=_ANOTHER,
            tensor=spec.name,
            size=weight.nbytes,
            dtype=weight.dtype,
            shape=spec.shape,
            expected=packed,
        )


def _expect(name: str, piece: Piece, dtypes: Collection[str], shape: tuple[int, ...]) -> None:
    """Raise CheckpointError for a piece of another type or shape."""
    if piece.dtype not in dtypes:
        raise CheckpointError(
            "{tensor} is stored as {dtype}; expected {names}.",
            hint=_ANOTHER,
            tensor=name,
            dtype=piece.dtype,
            names=", ".join(sorted(dtypes)),
        )
    if piece.shape != shape:
        raise CheckpointError(
            "{tensor} has the shape {shape}; config.json requires {expected}.",
            hint=_ANOTHER,
            tensor=name,
            shape=list(piece.shape),
            expected=list(shape),
        )


def _read_states(states: Mapping[str, Piece]) -> dict[str, bytes]:
    """Return the small quant_state blobs; each file is opened once."""
    blobs: dict[str, bytes] = {}
    by_file: dict[Path, list[tuple[str, Piece]]] = {}
    for name, piece in states.items():
        if piece.dtype != "U8" or piece.nbytes > _MAX_QUANT_STATE_BYTES:
            raise CheckpointError(
                "{tensor}.quant_state is {size} bytes of {dtype}; expected U8 and at most {most}.",
                hint=_ANOTHER,
                tensor=name,
                size=piece.nbytes,
                dtype=piece.dtype,
                most=_MAX_QUANT_STATE_BYTES,
            )
        by_file.setdefault(piece.file, []).append((name, piece))
    for file, wanted in by_file.items():
        try:
            with file.open("rb", buffering=0) as stream:
                for name, piece in wanted:
                    stream.seek(piece.begin)
                    blobs[name] = stream.read(piece.nbytes)
        except OSError as error:
            raise CheckpointError(
                "{file} can't be read: {why}.", file=file, why=error.strerror or error
            ) from error
    return blobs


def _read_quant(spec: TensorSpec, kind: str, blob: bytes, *, nested: bool) -> QuantInfo:
    """Return the content of a quant_state blob, checked against its tensor.

    Keys: quant_type, blocksize, dtype, shape; with double quantization also nested_blocksize,
    nested_dtype and nested_offset.
    """
    state = parse_json_object(blob, where=f"{spec.name}.quant_state")
    # JSON does not distinguish int and float, and a writer may print the float 0.0 as 0.
    if type(state.get("nested_offset")) is int and abs(state["nested_offset"]) < 2**24:
        state["nested_offset"] = float(state["nested_offset"])
    group, nested_group = state.get("blocksize"), state.get("nested_blocksize", 256)
    dtype, offset = state.get("dtype"), state.get("nested_offset", 0.0)
    rules = {
        Text("quant_type must be {value}", value=kind): state.get("quant_type") == kind,
        Text("blocksize must be one of {names}", names=GROUPS): type(group) is int
        and group in GROUPS,
        Text("dtype must be float32, float16 or bfloat16"): isinstance(dtype, str)
        and dtype in _SOURCE_DTYPES,
        Text("shape must be {shape}", shape=list(spec.shape)): state.get("shape")
        == list(spec.shape),
        Text("nested_blocksize must be 256"): type(nested_group) is int and nested_group == 256,
        Text("nested_dtype must be float32"): state.get("nested_dtype", "float32") == "float32",
        Text("nested_offset must be a finite number"): isinstance(offset, float)
        and math.isfinite(offset),
        Text("nested_offset and nested_absmax belong together"): ("nested_offset" in state)
        == nested,
        Text("it has unknown keys"): state.keys() <= _STATE_KEYS,
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise CheckpointError(
            "{tensor}.quant_state: {why}.", hint=_ANOTHER, tensor=spec.name, why=broken[0]
        )
    return QuantInfo(
        quant_type=kind,
        group=state["blocksize"],
        dtype=str(dtype),
        nested=nested,
        nested_group=nested_group,
        nested_offset=offset,
    )
