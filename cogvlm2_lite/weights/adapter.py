"""Adapters (LoRA) in peft's files: reading, checking and writing them.

A folder has `adapter_config.json` and `adapter_model.safetensors`. The names and shapes of the
tensors decide which matrices an adapter changes; the config has its scales. Folders come from
peft itself, from the released fine-tuning demo, ms-swift, LLaMA-Factory and axolotl, and from
strangers: what is no plain LoRA is rejected by name, and nothing in a file is executed.

`cogvlm2_lite_adapter.json` has what peft has no place for: the base model and the rows on which
the adapter acts. Other programs ignore it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Role, expected_tensors
from cogvlm2_lite.errors import AdapterError
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.adapter_names import (
    ACTS_ON,
    ALL_ROWS,
    CONFIG_NAME,
    OWN_NAME,
    WEIGHTS_NAME,
)
from cogvlm2_lite.weights.header import Shard, parse_json_object, printable, read_shard
from cogvlm2_lite.weights.identity import Base
from cogvlm2_lite.weights.reader import map_shard
from cogvlm2_lite.weights.writer import (
    PlannedPiece,
    ShardLayout,
    ShardWriter,
    sync_folder,
    write_file_durably,
)

FORMAT_VERSION = 1

_PREFIX = "base_model.model."
_TEMPLATES = ("chat", "vqa", "base")
_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<name>[^.]+))?\.weight")
_FLOATS = frozenset({"F32", "F16", "BF16"})
_WRITTEN = {torch.float32: "F32", torch.bfloat16: "BF16"}
_MAX_CONFIG_BYTES = 2**20
_MOST_PATTERNS, _LONGEST_PATTERN, _MOST_PATTERN_WORK = 100, 200, 20_000
_LARGEST_SETTING = 1e9
"""Of r, lora_alpha and the numbers of patterns; anything above is a mistake."""
_ALLOWED_GROUPS = re.compile(r"\(\?(?![:=!]|<[=!])")
_QUANTIZATION_WORDS = {"dense": "16-bit", "nf4": "NF4", "fp4": "FP4", "int8": "int8"}
_NEVER_ADAPTED = ("lm_head", "embed_tokens")
_PLAIN_INITS = frozenset({"true", "false", "gaussian", "orthogonal", "eva", "mica"})

_INFORMATION = frozenset({
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
})  # fmt: skip
"""Keys that say how the adapter was trained; they do not change what it computes."""
_READ = frozenset(
    {"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"}
    | {"init_lora_weights", "bias"}
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """The two matrices of an adapter for one linear layer, as stored.

    down   lora_A, [rank, in_features]
    up     lora_B, [out_features, rank], without the scale
    scale  alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def numel(self) -> int:
        return self.down.numel() + self.up.numel()


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """A checked adapter.

    name     the folder's name, or what the user calls it
    pairs    by the name of the matrix, with its ".weight"
    acts_on  "all" rows, or those "behind the picture"
    sha256   of the tensors' file
    base     fingerprint of the model it was trained on; "" if the folder does not have it
    remarks  sentences for the user
    answer_space  whether the answers that it learnt begin with a space
    template      prompt template that it learnt; None: not known
    held_out      its mean loss on held-out answers, by "before", "after" and "after_in_peft", as
                  far as it was measured; the last is that with all rows
    """

    name: str
    pairs: Mapping[str, Pair]
    acts_on: str
    sha256: str
    base: str = ""
    remarks: tuple[Text, ...] = ()
    answer_space: bool = False
    template: str | None = None
    held_out: Mapping[str, float] = field(default_factory=dict)


def read_adapter(
    folder: Path,
    config: ModelConfig,
    *,
    name: str = "",
    base: Base | None = None,
    any_base: bool = False,
) -> Adapter:
    """Read an adapter and check it against the model.

    name      what the user calls it; "": the folder's name
    base      the model that it is used with; None: not compared
    any_base  accept an adapter that was trained on another model of the same shape

    Raises AdapterError if a file is missing, if the adapter is no plain LoRA, or if it belongs to
    another model, and CheckpointError for a damaged file.
    """
    if not folder.is_dir():
        raise AdapterError(
            "There is no adapter folder {folder}.",
            hint="An adapter is a folder with {name}.",
            folder=folder,
            name=WEIGHTS_NAME,
        )
    if not (folder / CONFIG_NAME).is_file():
        raise AdapterError(
            "{folder} has no {name}.",
            hint=_where_instead(folder),
            folder=folder,
            name=CONFIG_NAME,
        )
    called = folder.resolve().name
    settings = _read_json(folder / CONFIG_NAME, folder)
    _check_settings(settings, folder)
    shard = _open_weights(folder)
    file = shard.file
    sides = _sides({name: each.shape for name, each in shard.pieces.items()}, config, str(file))
    own = _read_own(folder)
    tensors = map_shard(shard)
    pairs = {
        matrix: _pair(matrix, tensors[down], tensors[up], settings, folder)
        for matrix, (down, up) in sides.items()
    }
    trained_on = _read_base(own)
    if base is not None and trained_on.source not in ("", base.source) and not any_base:
        raise AdapterError(
            "{folder} was trained on another model of the same shape.",
            hint="Use the model it was made for, or --any-base to use it all the same.",
            folder=folder,
        )
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    remarks = [] if base is None else _remarks_about_base(called, trained_on, base)
    if own.get("sha256") not in (None, digest):
        remarks.append(
            Text(
                "The tensors of the adapter {name} were changed after it was trained.",
                name=called,
            )
        )
    if not any(bool(pair.up.any()) for pair in pairs.values()):
        remarks.append(Text("The adapter {name} changes nothing: it is zero.", name=called))
    return Adapter(
        name=name or called,
        pairs=pairs,
        acts_on=str(own.get("acts_on", ALL_ROWS)),
        sha256=digest,
        base=trained_on.source,
        remarks=tuple(remarks),
        answer_space=own.get("answer_space") is True,
        template=own["template"] if own.get("template") in _TEMPLATES else None,
        held_out=_losses(own.get("held_out")),
    )


def _losses(told: object) -> dict[str, float]:
    """Return the losses that an adapter's own file has."""
    values = told if isinstance(told, dict) else {}
    return {
        name: float(values[name])
        for name in ("before", "after", "after_in_peft")
        if isinstance(values.get(name), float)
    }


def _open_weights(folder: Path) -> Shard:
    """Return the header of the tensors' file, in types that adapters have."""
    file = folder / WEIGHTS_NAME
    if not file.is_file():
        raise AdapterError(
            "{folder} has no {name}.",
            hint="adapter_model.bin is in pickle format, which can run programs, and is not "
            'opened. If you trust it, convert it in its folder: python -c "import torch, '
            "safetensors.torch as s; s.save_file(torch.load('adapter_model.bin', "
            "weights_only=True), 'adapter_model.safetensors')\""
            if (folder / "adapter_model.bin").is_file()
            else "Copy the adapter again.",
            folder=folder,
            name=WEIGHTS_NAME,
        )
    shard = read_shard(file)
    for key, piece in shard.pieces.items():
        if piece.dtype not in _FLOATS:
            raise AdapterError(
                "{file}: {tensor} has the type {dtype}; adapters are float32, float16 or bfloat16.",
                file=file,
                tensor=printable(key),
                dtype=piece.dtype,
            )
    return shard


def _where_instead(folder: Path) -> Text:
    """Return a hint about a folder that has no adapter."""
    if (folder / "config.json").is_file():
        return Text("This is the folder of a model. An adapter is a folder of its own.")
    below = sorted(folder.glob(f"*/{CONFIG_NAME}"), key=lambda file: _mtime(file))
    if below:
        return Text("Did you mean {folder}?", folder=below[-1].parent)
    return Text("Copy the adapter again.")


def _mtime(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _remarks_about_base(name: str, trained_on: Base, base: Base) -> list[Text]:
    """Return sentences about an adapter and the model that it is used with."""
    if not trained_on.source:
        return [Text("The adapter {name} does not say for which model it was made.", name=name)]
    remarks = []
    if trained_on.source == base.source and trained_on.weights not in ("", base.weights):
        theirs, ours = _quantization(trained_on.kinds), _quantization(base.kinds)
        remarks.append(
            Text(
                "The adapter {name} was trained on the {theirs} weights of this model, and has "
                "learnt their rounding errors. These are its {ours} weights. On the demo model, "
                "98.7 % of an adapter's new answers were right with the NF4 weights that it was "
                "trained on, and 94.7 % with the 16-bit ones.",
                name=name,
                theirs=theirs,
                ours=ours if ours != theirs else Text("other {kind}", kind=ours),
            )
        )
    if trained_on.tokenizer and base.tokenizer and trained_on.tokenizer != base.tokenizer:
        remarks.append(
            Text(
                "The adapter {name} was trained with another tokenizer.json. If its tokens are "
                "other ones, the answers are wrong.",
                name=name,
            )
        )
    return remarks


def _quantization(kinds: Mapping[str, int]) -> str:
    """Return the word for how most matrices are stored."""
    common = max(kinds, key=lambda kind: kinds[kind], default="dense")
    return _QUANTIZATION_WORDS.get(common, common)


# --- adapter_config.json --------------------------------------------------------------------------


def _read_json(file: Path, folder: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_CONFIG_BYTES:
            raise AdapterError("{file} has more than 1 MiB, so it is no adapter's.", file=file)
        raw = file.read_bytes()
    except FileNotFoundError:
        raise AdapterError(
            "{folder} has no {name}.",
            hint="Copy the adapter again.",
            folder=folder,
            name=file.name,
        ) from None
    except OSError as error:
        raise AdapterError(
            "{file} can't be read: {why}.", file=file, why=error.strerror or error
        ) from error
    return parse_json_object(raw, where=str(file))


def _check_settings(settings: Mapping[str, Any], folder: Path) -> None:
    """Reject every setting that makes the adapter something other than plain LoRA."""
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise _unsupported(folder, "peft_type", kind)
    init = settings.get("init_lora_weights", True)
    if str(init).lower() not in _PLAIN_INITS:
        raise AdapterError(
            "{folder} was made with init_lora_weights {value}, which also changes the base model.",
            hint="Convert it to plain LoRA with peft: save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...).",
            folder=folder,
            value=printable(str(init)),
        )
    if settings.get("bias", "none") != "none":
        raise _unsupported(folder, "bias", settings["bias"])
    for key, value in settings.items():
        if key not in _READ and key not in _INFORMATION and value not in (None, False, {}, []):
            raise _unsupported(folder, key, value)
    for key in ("r", "lora_alpha"):
        value = settings.get(key)
        if not _is_positive(value):
            raise AdapterError(
                "{file}: {key} must be a positive number, not {value}.",
                file=folder / CONFIG_NAME,
                key=key,
                value=printable(repr(value)),
            )
    if settings.get("use_rslora") not in (None, False, True):
        raise _unsupported(folder, "use_rslora", settings["use_rslora"])
    for key in ("rank_pattern", "alpha_pattern"):
        _check_patterns(settings.get(key) or {}, key, folder)


def _unsupported(folder: Path, key: str, value: object) -> AdapterError:
    return AdapterError(
        "{folder} can't be used: its setting {key} is {value}, which is not supported.",
        hint="Only plain LoRA adapters are.",
        folder=folder,
        key=printable(key),
        value=printable(repr(value)[:100]),
    )


def _is_positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= _LARGEST_SETTING


def _check_patterns(patterns: object, key: str, folder: Path) -> None:
    """Reject patterns that could take very long: Python's `re` has no time limit."""
    fine = isinstance(patterns, dict) and len(patterns) <= _MOST_PATTERNS
    if fine:
        assert isinstance(patterns, dict)
        fine = (
            all(map(_is_positive, patterns.values()))
            and sum(map(_pattern_work, patterns)) <= _MOST_PATTERN_WORK
        )
    if not fine:
        raise AdapterError(
            "{file}: {key} has a pattern that is not allowed.",
            hint="Write the names of the modules in full.",
            file=folder / CONFIG_NAME,
            key=key,
        )


def _pattern_work(pattern: str) -> float:
    """Return a bound on the ways in which a pattern can match, without its place in the name.

    Names have fewer than 100 characters, so a repeat has at most that many ways. Infinite for a
    pattern that is not allowed: one that is too long or no pattern, repeats of groups or of other
    repeats, references to groups, and special groups.
    """
    never = float("inf")
    if len(pattern) > _LONGEST_PATTERN or re.search(r"\\\d", pattern):
        return never
    # Without escaped characters and character classes, which stand for one character each.
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern)
    if re.search(r"[)*+?}][*+?{]", bare) or _ALLOWED_GROUPS.search(bare):
        return never
    try:
        re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError, OverflowError):
        return never
    repeats, options = len(re.findall(r"[*+{]", bare)), len(re.findall(r"(?<!\()\?", bare))
    ways = 100.0 ** min(repeats, 9) * 2.0**options
    alternatives = [1]
    for char in bare:
        if char == "(":
            alternatives.append(1)
        elif char == "|":
            alternatives[-1] += 1
        elif char == ")" and len(alternatives) > 1:
            ways *= alternatives.pop()
    return ways * alternatives[0]


def _lookup(patterns: Mapping[str, float], module: str, default: float) -> float:
    """Return the value of the first pattern that matches a module's name, as peft does."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


# --- the tensors ----------------------------------------------------------------------------------


def pairs_of(
    tensors: Mapping[str, Tensor], config: ModelConfig
) -> tuple[dict[str, tuple[Tensor, Tensor]], int]:
    """Return lora_A and lora_B for each matrix, and their common rank.

    tensors  by peft's names

    Raises AdapterError if names or shapes do not belong to the model, or if ranks differ.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    sides = _sides(shapes, config, "the adapter")
    ranks = {shapes[down][0] for down, _ in sides.values()}
    if len(ranks) > 1:
        raise AdapterError("The matrices of {file} have different ranks.", file="the adapter")
    pairs = {matrix: (tensors[down], tensors[up]) for matrix, (down, up) in sides.items()}
    return pairs, ranks.pop()


def _sides(
    shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, where: str
) -> dict[str, tuple[str, str]]:
    """Return the names of lora_A and lora_B for each matrix; checks names and shapes."""
    matrices = {
        spec.name: spec
        for spec in expected_tensors(config).values()
        if spec.role is Role.LINEAR and spec.part is not Part.LM_HEAD
    }
    found: dict[str, dict[str, str]] = {}
    names = set()
    for key in shapes:
        match = _KEY.fullmatch(key)
        module = (key if match is None else match["module"]).split(".")
        if any(name in module for name in _NEVER_ADAPTED):
            raise AdapterError(
                "{file} changes {tensor}. Adapters of the output matrix and of the embedding are "
                "not supported.",
                hint="Train an adapter of the linear layers of the blocks.",
                file=where,
                tensor=printable(key),
            )
        matrix = "" if match is None else match["module"].removeprefix(_PREFIX) + ".weight"
        if match is None or matrix not in matrices:
            raise AdapterError(
                "{file} has the tensor {tensor}, which is no part of an adapter of this model.",
                hint="The adapter was made for another model, or trains more than linear layers.",
                file=where,
                tensor=printable(key),
            )
        names.add(match["name"])
        if len(names) > 1:
            raise AdapterError("{file} has several adapters.", file=where)
        if match["side"] in found.setdefault(matrix, {}):
            raise AdapterError(
                "{file} has lora_{side} of {tensor} twice.",
                file=where,
                side=match["side"],
                tensor=matrix.removesuffix(".weight"),
            )
        found[matrix][match["side"]] = key
    if not found:
        raise AdapterError("{file} has no tensors.", file=where)
    pairs = {}
    for matrix, sides in found.items():
        if len(sides) != 2:
            raise AdapterError(
                "{file} has only one of the two matrices of {tensor}.",
                file=where,
                tensor=matrix.removesuffix(".weight"),
            )
        rows, columns = matrices[matrix].shape
        down, up = (shapes[sides[side]] for side in "AB")
        rank = down[0] if down else 0
        if down != (rank, columns) or up != (rows, rank) or rank < 1:
            raise AdapterError(
                "{file}: the matrices of {tensor} have the shapes {down} and {up}; this model "
                "needs [rank, {columns}] and [{rows}, rank].",
                hint="They are empty: DeepSpeed with ZeRO 3 writes such files unless "
                "stage3_gather_16bit_weights_on_model_save is on. Save the adapter again."
                if 0 in (*down, *up)
                else "The adapter was made for another model.",
                file=where,
                tensor=matrix.removesuffix(".weight"),
                down=list(down),
                up=list(up),
                rows=rows,
                columns=columns,
            )
        pairs[matrix] = (sides["A"], sides["B"])
    return pairs


def _pair(matrix: str, down: Tensor, up: Tensor, settings: Mapping[str, Any], folder: Path) -> Pair:
    module, rank = matrix.removesuffix(".weight"), down.shape[0]
    stated = _lookup(settings.get("rank_pattern") or {}, module, settings["r"])
    if stated != rank:
        raise AdapterError(
            "{folder}: {tensor} has the rank {rank}, but the settings say {stated}.",
            hint="The two files do not belong together. Copy the adapter again.",
            folder=folder,
            tensor=module,
            rank=rank,
            stated=stated,
        )
    alpha = _lookup(settings.get("alpha_pattern") or {}, module, settings["lora_alpha"])
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    down, up = down.to(torch.float32), up.to(torch.float32)
    if not (bool(torch.isfinite(down).all()) and bool(torch.isfinite(up * scale).all())):
        raise AdapterError(
            "{folder}: {tensor} has values that are not finite numbers.",
            hint="Its training failed. Use an earlier state of it.",
            folder=folder,
            tensor=module,
        )
    return Pair(down=down, up=up, scale=scale)


def _read_own(folder: Path) -> dict[str, Any]:
    """Return the content of the file of this project; {} if the folder has none."""
    file = folder / OWN_NAME
    if not file.is_file():
        return {}
    own = _read_json(file, folder)
    if own.get("format_version") != FORMAT_VERSION:
        raise AdapterError(
            "{file} has format version {format!r}; this program knows version {known}.",
            hint="Update CogVLM2 Lite.",
            file=file,
            format=own.get("format_version"),
            known=FORMAT_VERSION,
        )
    if own.get("acts_on", ALL_ROWS) not in ACTS_ON or not isinstance(own.get("base") or {}, dict):
        raise AdapterError("{file} is damaged.", hint="Copy the adapter again.", file=file)
    return own


def _read_base(own: Mapping[str, Any]) -> Base:
    """Return what an adapter's own file says about its base; what it does not say is empty."""
    told = own.get("base") or {}
    kinds = told.get("kinds")
    if not isinstance(kinds, dict):
        kinds = {}
    return Base(
        source=str(told.get("source_fingerprint") or ""),
        weights=str(told.get("folder_fingerprint") or ""),
        kinds={kind: count for kind, count in kinds.items() if isinstance(count, int)},
        tokenizer=str(told.get("tokenizer_sha256") or ""),
    )


# --- writing --------------------------------------------------------------------------------------


def peft_name(matrix: str, side: str) -> str:
    """Return peft's name of lora_A or lora_B of a matrix, for side "A" or "B"."""
    return f"{_PREFIX}{matrix.removesuffix('.weight')}.lora_{side}.weight"


def write_adapter(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    alpha: float,
    base_name: str,
    facts: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write an adapter that peft reads; existing files are replaced one by one, the weights last.

    tensors    peft's names to float32 tensors; all pairs have one rank
    alpha      peft's lora_alpha
    base_name  name of the base model, without a path
    facts      for cogvlm2_lite_adapter.json: acts_on, base and so on
    dtype      in the file, float32 or bfloat16

    Raises OSError for a full disk, missing permissions and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    modules = sorted({key.removeprefix(_PREFIX).split(".lora_")[0] for key in tensors})
    (rank,) = {tensor.shape[0] for key, tensor in tensors.items() if ".lora_A." in key}
    settings: dict[str, Any] = {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": base_name,
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
        "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
        "loftq_config": {}, "lora_alpha": alpha, "lora_dropout": 0.0, "megatron_config": None,
        "megatron_core": "megatron.core", "modules_to_save": None, "peft_type": "LORA", "r": rank,
        "rank_pattern": {}, "revision": None, "target_modules": _targets(modules),
        "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": False,
    }  # fmt: skip
    layout = ShardLayout(
        pieces=tuple(
            PlannedPiece(name=key, dtype=_WRITTEN[dtype], shape=tuple(tensor.shape))
            for key, tensor in sorted(tensors.items())
        )
    )
    temporary = folder / (WEIGHTS_NAME + ".tmp")
    try:
        with ShardWriter(temporary, layout) as writer:
            for piece in layout.pieces:
                data = tensors[piece.name].detach().to(dtype).contiguous().cpu()
                writer.begin(piece.name)
                writer.write(data.view(torch.uint8).numpy().data)
                writer.end()
            writer.sync()
        with temporary.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        own = {"format_version": FORMAT_VERSION, **facts, "sha256": digest}
        write_file_durably(folder / CONFIG_NAME, _as_json(settings))
        write_file_durably(folder / OWN_NAME, _as_json(own))
        temporary.replace(folder / WEIGHTS_NAME)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)


def _targets(modules: list[str]) -> list[str]:
    """Return peft's target_modules: the last parts of the names, long enough to be unambiguous."""
    found = set()
    for module in modules:
        parts = module.split(".")
        parent = parts[-2]
        single = parent in ("self_attn",)
        found.add(parts[-1] if single else f"{parent}.{parts[-1]}")
    return sorted(found)


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
