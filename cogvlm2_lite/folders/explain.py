"""The errors for folders without config.json or without weights: what they are, and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.folders.contents import GET_SAFETENSORS, HEAD_BYTES, UNPACK, wrong_content
from cogvlm2_lite.folders.downloads import files_in, saved_as, unfinished_downloads
from cogvlm2_lite.text import Text, marked
from cogvlm2_lite.units import format_bytes

CONFIG_NAME = "config.json"
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

CHOOSE = marked("Choose the folder that contains config.json and the .safetensors files.")
DOWNLOAD = marked("Download the folder again, or copy the missing files into it.")
_CONTINUE = marked(
    "Continue the download with the same program until it has ended, then try again."
)

_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_ARCHIVES = frozenset({".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".xz", ".zst", ".bz2"})
_FORMATS = {".gguf": "GGUF", ".ggml": "GGML", ".onnx": "ONNX", ".h5": "HDF5", ".msgpack": "Flax"}
"""Weights in formats of other programs, by the ending of the file name."""

_MOST_FOLDERS = 500
_MOST_LEVELS = 4
"""Bounds of the search for a model below a folder; a Hugging Face cache has four levels."""


def listed(names: Sequence[str]) -> Text:
    """Return the first three names, and the number of the others."""
    first = ", ".join(_printable(name) for name in names[:3])
    if len(names) <= 3:
        return Text(first)
    return Text("{names} and {count} more", names=first, count=len(names) - 3)


def _printable(name: str) -> str:
    cut = name if len(name) <= 120 else f"{name[:117]}..."
    return cut if cut.isprintable() else ascii(cut)


# --- a file in place of a folder ------------------------------------------------------------------


def explain_file(file: Path) -> CheckpointError:
    """Return the error for a file that was given in place of a model folder."""
    try:
        with file.open("rb") as stream:
            found = wrong_content(file, stream.read(HEAD_BYTES), file.stat().st_size)
    except OSError:
        found = None
    if found:
        return found
    return CheckpointError(
        "{name!r} is a file, but a model is a folder.",
        hint="Use its folder, {folder}." if _has_model(file.parent) else CHOOSE,
        name=str(file),
        folder=file.parent,
    )


# --- a folder without config.json -----------------------------------------------------------------


def explain_no_config(folder: Path) -> CheckpointError:
    """Return the error for a folder that has no config.json."""
    return (
        _cache_folder(folder)
        or _other_kind(folder)
        or _config_saved_as(folder)
        or _models_below_error(folder)
        or _unfinished_error(folder, CONFIG_NAME)
        or _other_weights(folder)
        or CheckpointError(
            "{folder} has weights, but no config.json, which says what model they belong to."
            if any(folder.glob("*.safetensors"))
            else "{folder} has no config.json, so it is not a model folder.",
            hint="Choose the folder that contains config.json and the .safetensors files, or copy "
            "config.json from where the weights came from.",
            folder=folder,
        )
    )


def _cache_folder(folder: Path) -> CheckpointError | None:
    """Return the error for a folder of the Hugging Face cache above or beside the snapshots."""
    real = folder.resolve()
    inside = real.name in ("snapshots", "blobs", "refs") and real.parent.name.startswith("models--")
    base = real.parent if inside and real.name != "snapshots" else folder
    is_cache = inside or (folder / "snapshots").is_dir() or real.name.startswith("models--")
    if not is_cache and not any((*folder.glob("models--*"), *folder.glob("hub/models--*"))):
        return None
    found = models_below(base)
    return CheckpointError(
        "{folder} is a folder of the Hugging Face cache, not a model folder.",
        hint=_use(found)
        if found
        else Text("Its snapshots have no complete model. Run the download again until it ends."),
        folder=folder,
    )


def _other_kind(folder: Path) -> CheckpointError | None:
    """Return the error for folders that other programs or an unfinished conversion wrote."""
    if (folder / "job.json").is_file():
        return CheckpointError(
            "{folder} is an unfinished conversion.",
            hint="Run the same quantize command again: it continues where it stopped.",
            folder=folder,
        )
    if (folder / "adapter_config.json").is_file():
        return CheckpointError(
            "{folder} is a LoRA adapter, not a whole model.",
            hint="Merge it into the model that it was trained on, and use the merged folder.",
            folder=folder,
        )
    if (folder / "model_index.json").is_file():
        return CheckpointError(
            "{folder} is a pipeline of diffusers, which CogVLM2 Lite does not run.",
            hint=CHOOSE,
            folder=folder,
        )
    if (folder / "model_config.json").is_file() or any(folder.glob("*/mp_rank_*")):
        return CheckpointError(
            "{folder} is a checkpoint of SwissArmyTransformer (SAT).",
            hint=GET_SAFETENSORS,
            folder=folder,
        )
    return None


def explain_no_file(folder: Path, name: str) -> CheckpointError | None:
    """Return the error for a missing file that is there under another name or in part; or None."""
    if other := saved_as(folder, name):
        return _renamed(folder, other, name)
    begun = [file for file in unfinished_downloads(folder) if file.name.startswith(name)]
    return _unfinished_error(folder, name) if begun else None


def _config_saved_as(folder: Path) -> CheckpointError | None:
    other = saved_as(folder, CONFIG_NAME)
    return None if other is None else _renamed(folder, other, CONFIG_NAME)


def _renamed(folder: Path, other: Path, name: str) -> CheckpointError:
    return CheckpointError(
        "{folder} has {other}, but no {name}.",
        hint="If it is the same file, rename {other} to {name}.",
        folder=folder,
        other=_printable(other.name),
        name=name,
    )


def _models_below_error(folder: Path) -> CheckpointError | None:
    found = models_below(folder)
    if not found:
        return None
    return CheckpointError(
        "{folder} has no config.json; the model is in a folder below it.",
        hint=_use(found),
        folder=folder,
    )


def _use(folders: Sequence[Path]) -> Text:
    if len(folders) == 1:
        return Text("Use {folder}.", folder=folders[0])
    return Text("Use one of {folders}.", folders=listed([str(folder) for folder in folders]))


def models_below(folder: Path) -> list[Path]:
    """Return the model folders below a folder: CogVLM's if there are any, else all.

    Of the snapshots of one model in a Hugging Face cache, only the one that `refs/main` names is
    returned, or the newest. The search is bounded, because the folder may be a whole disk.
    """
    level, found, seen = [folder], list[Path](), 0
    for _ in range(_MOST_LEVELS):
        level = sorted(child for parent in level for child in _folders(parent))
        level = level[: _MOST_FOLDERS - seen]
        seen += len(level)
        found += [child for child in level if _has_model(child)]
    found = [child for child in found if _is_chosen_snapshot(child, found)]
    ours = [child for child in found if b"CogVLM" in _begin_of(child / CONFIG_NAME)]
    return ours or found


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            folders = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [parent / name for name in folders if not name.startswith(".")]


def _has_model(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file() and (
        (folder / INDEX_NAME).is_file() or any(folder.glob("*.safetensors"))
    )


def _is_chosen_snapshot(folder: Path, all_found: Iterable[Path]) -> bool:
    if folder.parent.name != "snapshots":
        return True
    siblings = [other for other in all_found if other.parent == folder.parent]
    main = _begin_of(folder.parent.parent / "refs" / "main").decode("utf-8", "replace").strip()
    if any(other.name == main for other in siblings):
        return folder.name == main
    return folder == max(siblings, key=lambda other: (other.stat().st_mtime_ns, other.name))


def _begin_of(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return b""


# --- a folder without all of its weights ----------------------------------------------------------


def explain_no_weights(folder: Path) -> CheckpointError:
    """Return the error for a folder with a config.json, but no index and no single weight file."""
    for name in (INDEX_NAME, SINGLE_NAME):
        if other := saved_as(folder, name):
            return _renamed(folder, other, name)
    if loose := sorted(p.name for p in folder.glob("*.safetensors")):
        return _no_index(folder, loose)
    return (
        _unfinished_error(folder, "*.safetensors")
        or _other_weights(folder)
        or CheckpointError("{folder} has no safetensors weights.", hint=DOWNLOAD, folder=folder)
    )


def _no_index(folder: Path, loose: list[str]) -> CheckpointError:
    totals = {m[1] for name in loose if (m := re.search(r"-of-(\d{1,5})\.safetensors$", name))}
    if len(totals) == 1 and len(loose) < int(min(totals)):
        return CheckpointError(
            "{folder} has {count} of {total} weight files ({names}), and no {index} that lists "
            "their tensors.",
            hint=DOWNLOAD,
            folder=folder,
            count=len(loose),
            total=int(min(totals)),
            names=listed(loose),
            index=INDEX_NAME,
        )
    return CheckpointError(
        "{folder} has {names}, but no {index} that lists their tensors.",
        hint="Copy or download {index} from where the weights came from.",
        folder=folder,
        names=listed(loose),
        index=INDEX_NAME,
    )


def _unfinished_error(folder: Path, what: str) -> CheckpointError | None:
    """Return the error for a folder that lacks `what` while downloads into it are unfinished."""
    unfinished = unfinished_downloads(folder)
    if not unfinished:
        return None
    return CheckpointError(
        "{folder} has no {what} yet, but downloads that have not finished: {count} ({names}).",
        hint=_CONTINUE,
        folder=folder,
        what=what,
        count=len(unfinished),
        names=listed([_described(file) for file in unfinished]),
    )


def _described(file: Path) -> str:
    try:
        return f"{_printable(file.name)}, {format_bytes(file.stat().st_size)}"
    except OSError:
        return _printable(file.name)


def _other_weights(folder: Path) -> CheckpointError | None:
    """Return the error for a folder whose weights are in a format that is not read."""
    files = files_in(folder)
    pickles = [p.name for p in files if p.suffix.lower() in _PICKLES]
    if pickles:
        return CheckpointError(
            "{folder} has its weights only as pickle files ({names}), which can run any program "
            "when they are opened.",
            hint="Get the safetensors version of the model. CogVLM2 Lite never opens pickle files.",
            folder=folder,
            names=listed(pickles),
        )
    other = [p for p in files if p.suffix.lower() in _FORMATS]
    if other:
        return CheckpointError(
            "{folder} has its weights as {format} ({names}), which CogVLM2 Lite can't read.",
            hint=GET_SAFETENSORS,
            folder=folder,
            format=_FORMATS[other[0].suffix.lower()],
            names=listed([p.name for p in other]),
        )
    packed = [p.name for p in files if p.suffix.lower() in _ARCHIVES]
    if packed:
        return CheckpointError(
            "{folder} has only packed archives ({names}).",
            hint=UNPACK,
            folder=folder,
            names=listed(packed),
        )
    return None


def explain_missing(folder: Path, missing: Sequence[str], count: int) -> CheckpointError:
    """Return the error for a folder that lacks files of its index.

    count  files that the index names
    """
    for name in missing:
        if other := saved_as(folder, name):
            return _renamed(folder, other, name)
    which = Text(
        "{missing} of {count} ({names})", missing=len(missing), count=count, names=listed(missing)
    )
    if unfinished := unfinished_downloads(folder):
        return CheckpointError(
            "{folder} lacks files: {which}. Downloads that have not finished are in it: {names}.",
            hint=_CONTINUE,
            folder=folder,
            which=which,
            names=listed([_described(file) for file in unfinished]),
        )
    if links := [name for name in missing if (folder / name).is_symlink()]:
        return CheckpointError(
            "{folder} lacks files: {which}. {link} is a link to {target}, which does not exist.",
            hint=DOWNLOAD,
            folder=folder,
            which=which,
            link=links[0],
            target=(folder / links[0]).readlink(),
        )
    return CheckpointError(
        "{folder} lacks files: {which}.",
        hint="Run the same download again: it fetches only what is missing."
        if folder.resolve().parent.name == "snapshots" or (folder / ".cache/huggingface").is_dir()
        else DOWNLOAD,
        folder=folder,
        which=which,
    )
