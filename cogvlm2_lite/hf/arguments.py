"""The arguments of `from_pretrained` as the options of our own loader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers.utils import logging

from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import NoFolderError, UsageError
from cogvlm2_lite.folders.explain import CONFIG_NAME
from cogvlm2_lite.weights.adapter_choice import AdapterChoice

logger = logging.get_logger(__name__)

_OWN = (
    "vram", "ram", "offload", "context", "kv", "activations", "rope", "parallel", "pictures",
    "any_base",
)  # fmt: skip
_AUTOMATIC = (None, "auto", "balanced", "balanced_low_0", "sequential")
_HUB = ("cache_dir", "revision", "token")
# What only concerns downloads, or how transformers would load and move weights.
_SILENT = frozenset({
    *_HUB, "force_download", "local_files_only", "proxies", "subfolder", "trust_remote_code",
    "code_revision", "resume_download", "low_cpu_mem_usage", "use_safetensors", "adapter_kwargs",
    "_from_auto", "_from_pipeline", "_commit_hash", "_fast_init", "weights_only", "max_shard_size",
    "offload_folder", "offload_state_dict", "offload_buffers", "user_agent", "variant",
    "mirror", "use_cache", "use_auth_token",
})  # fmt: skip
# What chooses between implementations that are all replaced by ours.
_REPLACED = frozenset({"attn_implementation", "use_flash_attention_2", "experts_implementation",
                       "use_kernels", "kernel_config", "tp_plan", "device_mesh"})  # fmt: skip
_QUANTIZED = ("quantization_config", "load_in_4bit", "load_in_8bit")
_UNABLE = ("gguf_file", "state_dict", "from_tf", "from_flax", "key_mapping")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What `from_pretrained` was called with.

    loading_info  return a report of missing tensors, too
    """

    options: LoadOptions
    loading_info: bool = False


def read_arguments(name: str | Path, given: Mapping[str, Any]) -> Arguments:
    """Return the arguments of `from_pretrained` as options.

    vram, ram, device, offload, context, kv, activations, rope, parallel, pictures, adapter and
    any_base are those of `cogvlm2_lite.load`; device_map, max_memory, dtype and torch_dtype mean
    the same as for other models. Raises UsageError for arguments that can't have their effect, and
    for unknown ones.
    """
    values = {key: value for key, value in given.items() if value is not None}
    quantized = {key: values.pop(key) for key in _QUANTIZED if key in values}
    for key in _UNABLE:
        if values.pop(key, False):
            raise UsageError("CogVLM2 Lite can't load a model with {param}.", param=key)
    replaced = sorted(key for key in _REPLACED if values.pop(key, None) is not None)
    if replaced:
        logger.warning(
            f"Ignored, because CogVLM2 Lite computes with its own kernels: {', '.join(replaced)}."
        )
    info = bool(values.pop("output_loading_info", False))
    dtype = values.pop("dtype", values.pop("torch_dtype", "auto"))
    values.pop("torch_dtype", None)
    own = {key: values.pop(key) for key in _OWN if key in values}
    if "adapter" in values:
        place = Path(values.pop("adapter"))
        own["adapters"] = (AdapterChoice(name=place.resolve().name, folder=place),)
    device = _device(values.pop("device", None), values.pop("device_map", None))
    memory = _memory(values.pop("max_memory", {}))
    hub = {key: values.get(key) for key in _HUB if values.get(key) is not None}
    unknown = sorted(set(values) - _SILENT)
    if unknown:
        raise UsageError(
            "Unknown arguments of from_pretrained: {names}.",
            hint="Its own options are {options}, device and dtype.",
            names=", ".join(unknown),
            options=", ".join((*_OWN, "adapter")),
        )
    folder = find_folder(name, hub)
    _check_quantization(quantized, folder)
    options = {**memory, **own}
    return Arguments(
        options=LoadOptions(folder=folder, device=device, dtype=_dtype(dtype), **options),
        loading_info=info,
    )


def _check_quantization(requests: Mapping[str, Any], folder: Path) -> None:
    """Raise UsageError for a quantization that the folder's weights do not have.

    Programs for the released model request 4 bits for its 4-bit folder, too; that changes nothing.
    """
    stored = json.loads((folder / CONFIG_NAME).read_bytes()).get("quantization_config")
    for key, request in requests.items():
        four_bits = key == "load_in_4bit" or getattr(request, "load_in_4bit", False) is True
        if isinstance(request, Mapping):
            four_bits = request.get("load_in_4bit") is True
        if request is not False and not (four_bits and stored):
            raise UsageError(
                "{param} can't change the weights: they are used as they are in the folder.",
                hint="Make a 4-bit folder once with `cogvlm2-lite quantize`, and load that folder.",
                param=key,
            )


def find_folder(name: str | Path, hub: Mapping[str, Any]) -> Path:
    """Return a model's folder, or its snapshot in the Hugging Face cache; nothing is downloaded.

    hub  cache_dir, revision and token, as in `from_pretrained`
    """
    try:
        return model_folder(str(name))
    except NoFolderError as error:
        if Path(name).is_absolute() or str(name).count("/") != 1:
            raise
        try:
            return Path(snapshot_download(str(name), local_files_only=True, **hub))
        except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError):
            raise NoFolderError(
                "There is no folder {name!r}, and the Hugging Face cache does not have the model.",
                hint="Download it with `hf download {name}`, or pass the path of its folder.",
                name=str(name),
            ) from error


def _device(device: Any, device_map: Any) -> str:
    """Return the word for `cogvlm2_lite.load`: "auto", "cpu", "cuda" or "cuda:1"."""
    if isinstance(device_map, Mapping):
        places = {str(place) for place in device_map.values()}
        if set(device_map) != {""}:
            raise UsageError(
                "A device_map that places single modules can't be used: {places}.",
                hint='Use device_map="auto" with vram= and ram=; the memory plan decides which '
                "weights are where.",
                places=", ".join(sorted(places)),
            )
        device_map = next(iter(device_map.values()))
    named = [_device_word(each) for each in (device, device_map) if each not in _AUTOMATIC]
    if len(set(named)) > 1:
        raise UsageError(
            "device and device_map name different devices: {names}.", names=", ".join(named)
        )
    return named[0] if named else "auto"


def _device_word(device: Any) -> str:
    if isinstance(device, int):
        return f"cuda:{device}" if device >= 0 else "cpu"
    text = str(device)
    return f"cuda:{text}" if text.isdecimal() else text


def _memory(limits: Any) -> dict[str, Any]:
    """Return accelerate's max_memory, such as {0: "10GiB", "cpu": "30GiB"}, as vram and ram."""
    if not isinstance(limits, Mapping):
        raise UsageError(
            "max_memory must be like {example}.", example='{0: "10GiB", "cpu": "30GiB"}'
        )
    gpus = [str(limits[key]) for key in sorted(k for k in limits if isinstance(k, int))]
    options: dict[str, Any] = {"vram": ",".join(gpus)} if gpus else {}
    if "cpu" in limits:
        options["ram"] = str(limits["cpu"])
    return options


def _dtype(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else str(dtype)
