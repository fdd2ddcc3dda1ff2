"""Finds the files of a benchmark on this computer, and reads all of its questions.

Nothing is downloaded, repaired or deleted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from pathlib import Path

from cogvlm2_lite.errors import DataError, UsageError
from cogvlm2_lite.evaluate import parquet
from cogvlm2_lite.evaluate.benchmarks import (
    BENCHMARKS,
    DEMO,
    DISCIPLINES,
    KNOWN_FILES,
    MMVET_CAPABILITIES,
    NAMES,
    OCRBENCH_CATEGORIES,
)
from cogvlm2_lite.evaluate.files import check_pictures, is_file
from cogvlm2_lite.evaluate.items import Data, DataFile, Item, Picture
from cogvlm2_lite.evaluate.literals import list_of_texts
from cogvlm2_lite.evaluate.original import LAYOUTS, benchmark_of_json, read_original
from cogvlm2_lite.evaluate.rows import Row, check_answers, item_notices, items_of
from cogvlm2_lite.evaluate.subsets import count_questions, countable
from cogvlm2_lite.evaluate.tsv import is_tsv_of_questions, read_tsv
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.places import expand_home
from cogvlm2_lite.text import Text

_LMU_VARIABLE = "LMUData"
_MOST_FOLDERS = 20_000
_MOST_DEPTH = 6
_STARTS = {
    "textvqa": "textvqa", "docvqa": "docvqa", "chartqa": "chartqa", "ocrbench": "ocrbench",
    "mmmu": "mmmu", "mmvet": "mmvet", "mm-vet": "mmvet", "mmbench": "mmbench",
}  # fmt: skip
_WORDS = re.compile(r"val|test|dev|en|cn|v11|local|legacy|\d+")
"""What may follow in a file name. OCRBench_v2, MMMU_Pro and others are different benchmarks."""
_HUB_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "textvqa": ("lmms-lab--textvqa",),
    "docvqa": ("lmms-lab--DocVQA", "HuggingFaceM4--DocumentVQA"),
    "chartqa": ("lmms-lab--ChartQA", "HuggingFaceM4--ChartQA"),
    "ocrbench": ("echo840--OCRBench",),
    "mmmu": ("MMMU--MMMU", "lmms-lab--MMMU"),
    "mmvet": ("lmms-lab--MMVet",),
    "mmbench": ("lmms-lab--MMBench", "HuggingFaceM4--MMBench", "lmms-lab--MMBench_EN"),
    "mmbench_cn": ("lmms-lab--MMBench", "lmms-lab--MMBench_CN"),
}
_LANGUAGES = {"en": "mmbench", "cn": "mmbench_cn", "cc": ""}
"""Configurations of MMBench's parquet folders; "cc" (CCBench) is another benchmark."""
_OPTIONS = ("A", "B")
_CHINESE = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The files to read. `benchmark` is "" where their content decides."""

    benchmark: str
    paths: tuple[Path, ...]


def find_data(name_or_path: str, data: Path | None = None, *, answers_needed: bool = True) -> Data:
    """Find and read a benchmark: every question is parsed, and every picture is looked for.

    name_or_path    a name of benchmarks.NAMES, or the path of a file or folder
    data            a file or folder; None: $LMUData or ~/LMUData, then the cache of Hugging Face
    answers_needed  False also reads files without answers, for an export

    Raises UsageError for an unknown name, and DataError for files that are missing, damaged,
    ambiguous or without answers.
    """
    if name_or_path in NAMES:
        return _named(name_or_path, data, answers_needed=answers_needed)
    path = expand_home(name_or_path)
    if data is not None or not path_exists(path):
        raise UsageError(
            "Unknown benchmark {name!r}: it is neither a name nor a file.",
            hint="Choose one of {names}, or the path of a data file.",
            name=name_or_path[:200],
            names=", ".join(NAMES),
        )
    return _read(_in_path("", path), "", answers_needed=answers_needed)


def is_benchmark(path: Path) -> bool:
    """Return whether an existing file or folder is one that `find_data` reads by its path.

    Others may be rows of pictures with answers.
    """
    if path.is_dir():
        files = _files_of(path, depth=_MOST_DEPTH)
        return any(_in_files(name, files) for name in _HUB_FOLDERS)
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        return bool(named_benchmark(path.stem)) or is_tsv_of_questions(path)
    if suffix == ".json":
        if any(layout.files.fullmatch(path.name) for layout in LAYOUTS.values()):
            return True
        with suppress(DataError):  # of a file that is no JSON, or too large for questions
            return bool(benchmark_of_json(path))
        return False
    return suffix not in (".jsonl", ".ndjson", ".csv")


def _named(name: str, data: Path | None, *, answers_needed: bool) -> Data:
    if name == DEMO:
        source = _Source(benchmark="vqa", paths=(_demo_file(),))
        if data is not None:
            source = replace(_in_path("vqa", data), benchmark="vqa")
    elif data is None:
        source = _on_this_computer(name)
    else:
        source = _in_path(name, data)
    return _read(source, name, answers_needed=answers_needed)


def _demo_file() -> Path:
    path = Path(str(package_files("cogvlm2_lite") / "demo" / "demo-vqa.tsv"))
    if not path.is_file():
        raise DataError(
            "The demo benchmark is not part of this installation.",
            hint="Install the package again from a complete source.",
        )
    return path


def _in_path(benchmark: str, path: Path) -> _Source:
    """Return the source in a file or folder that the user has named."""
    if not path_exists(path):
        raise DataError("There is no file or folder {path}.", hint="Check the spelling.", path=path)
    if is_file(path):
        return _Source(benchmark=benchmark, paths=tuple(_with_shards(path)))
    if not path.is_dir():
        raise DataError(
            "{path} is neither a file nor a folder.", hint="Name a data file.", path=path
        )
    wanted = [benchmark] if benchmark and benchmark != "vqa" else list(_HUB_FOLDERS)
    found = [source for name in wanted if (source := _in_folder(name, path))]
    if len({source.paths for source in found}) > 1:
        raise DataError(
            "{folder} has files of several benchmarks: {names}.",
            hint="Name the benchmark, and this folder with --data.",
            folder=path,
            names=", ".join(source.benchmark for source in found),
        )
    if not found:
        raise _nothing_found(benchmark, [path])
    # Files of MMBench in a folder without a language: their content decides.
    return found[0] if len(found) == 1 else replace(found[0], benchmark="")


def _on_this_computer(benchmark: str) -> _Source:
    """Return the source in the usual places."""
    looked = [_lmu_folder(), *_hub_folders()]
    found = _in_files(benchmark, _files_of(looked[0], depth=0))
    if found:
        return found
    for hub in looked[1:]:
        for snapshot in _snapshots(benchmark, hub):
            if found := _in_folder(benchmark, snapshot):
                return found
    raise _nothing_found(benchmark, looked)


def _lmu_folder() -> Path:
    """Return the folder of VLMEvalKit, which takes the variable only if that folder exists."""
    named = os.environ.get("LMUData", "")  # noqa: SIM112 - its name in VLMEvalKit
    return Path(named) if named and path_exists(Path(named)) else expand_home("~/LMUData")


def _cache_home() -> Path:
    named = os.environ.get("HF_HOME")
    cache = os.environ.get("XDG_CACHE_HOME")
    default = Path(cache) if cache else expand_home("~/.cache")
    return Path(named) if named else default / "huggingface"


def _hub_folders() -> list[Path]:
    """Return the folders of Hugging Face's hub cache, in the order of the library."""
    named = [os.environ.get(name, "") for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")]
    found = [expand_home(one) for one in named if one]
    return list(dict.fromkeys([*found, _cache_home() / "hub"]))


def _snapshots(benchmark: str, hub: Path) -> Iterator[Path]:
    """Yield the newest snapshot of each data set that may have the benchmark."""
    known = [f"datasets--{name}" for name in _HUB_FOLDERS[benchmark]]
    word = benchmark.removesuffix("_cn")
    others = sorted(
        one.name
        for one in _listed(hub)
        if one.name not in known
        and one.name.startswith("datasets--")
        and named_benchmark(one.name.rpartition("--")[2]).removesuffix("_cn") == word
    )
    for name in [*known, *others]:
        revisions = [one for one in _listed(hub / name / "snapshots") if one.is_dir()]
        if revisions:
            yield max(revisions, key=lambda one: one.stat().st_mtime)


def _in_folder(benchmark: str, folder: Path) -> _Source | None:
    return _in_files(benchmark, _files_of(folder, depth=_MOST_DEPTH))


def _in_files(benchmark: str, files: Sequence[Path]) -> _Source | None:
    """Return the benchmark's files: TSV, else JSON, else parquet; None without any.

    Files without answers come last: reading them then raises the error that names the right one.
    """
    tables = [one for one in files if one.suffix.lower() == ".tsv"]
    tables = [one for one in tables if named_benchmark(one.stem) == benchmark]
    ranked = sorted(tables, key=lambda one: (_rank(one), str(one)))
    if ranked and not _is_withheld(ranked[0]):
        return _only(benchmark, [one for one in ranked if _rank(one) == _rank(ranked[0])])
    originals, withheld = _original_files(benchmark, files)
    if originals:
        return _only(benchmark, originals)
    found = _in_parquet(benchmark, files)
    without = [*ranked, *withheld]
    if found is None and without:
        return _Source(benchmark=benchmark, paths=(without[0],))
    return found


def _original_files(benchmark: str, files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the JSON files of a benchmark's authors: those with answers, and those without.

    Of files that belong together, the first is returned.
    """
    layout = LAYOUTS.get(benchmark)
    if layout is None:
        return [], []
    found = [one for one in files if layout.files.fullmatch(one.name)]
    if layout.parts:
        found = list({one.parent: one for one in reversed(found)}.values())
    return found, [one for one in files if layout.withheld and layout.withheld.fullmatch(one.name)]


def _only(benchmark: str, paths: Sequence[Path]) -> _Source:
    if len(paths) > 1:
        raise _ambiguous(benchmark, paths)
    return _Source(benchmark=benchmark, paths=(paths[0],))


def _ambiguous(benchmark: str, paths: Sequence[Path]) -> DataError:
    return DataError(
        "Several files have the questions of {title}: {first} and {second}.",
        hint="Name one of them with --data.",
        title=BENCHMARKS[benchmark].title,
        first=paths[0],
        second=paths[1],
    )


def _rank(path: Path) -> int:
    """Return the place of a TSV in the order of preference."""
    names = [name.lower() for name in KNOWN_FILES]
    local = path.stem.lower().endswith("_local")
    name = path.name.lower().replace("_local.tsv", ".tsv")
    place = names.index(name) if name in names else len(names)
    return place + 100 * local + 1000 * _is_withheld(path)


def _is_withheld(path: Path) -> bool:
    return bool(_instead_of(path))


def _instead_of(path: Path) -> str:
    """Return the file to take instead of one that is known to have no answers, or ""."""
    name = path.name.lower().replace("_local.tsv", ".tsv")
    known = {key.lower(): one for key, one in KNOWN_FILES.items()}.get(name)
    return known.instead if known else ""


def _in_parquet(benchmark: str, files: Sequence[Path]) -> _Source | None:
    """Return the parquet files of the split that belongs to a benchmark."""
    kind = benchmark.removesuffix("_cn")
    groups: dict[Path, list[Path]] = {}
    checked: dict[tuple[Path, str], bool] = {}
    others: list[Path] = []
    for path in files:
        if path.suffix != ".parquet" or _is_foreign(path, benchmark):
            continue
        split = parquet.split_of(path)
        if split not in parquet.SPLITS[kind]:
            others.append(path)
            continue
        place = (path.parent, split)
        if place not in checked:
            checked[place] = parquet.benchmark_of(path) == kind
        if checked[place]:
            groups.setdefault(_root(kind, path), []).append(path)
    if len(groups) > 1:
        raise _ambiguous(benchmark, [paths[0] for paths in groups.values()])
    for paths in groups.values():
        return _Source(benchmark=benchmark, paths=tuple(sorted(paths)))
    other = next((one for one in others if parquet.benchmark_of(one) == kind), None)
    return None if other is None else _Source(benchmark=benchmark, paths=(other,))


def _is_foreign(path: Path, benchmark: str) -> bool:
    """Return whether a folder's name says that a file of the same columns is another benchmark."""
    folder = path.parent.name.lower()
    if "infographic" in folder:
        return True
    if benchmark.startswith("mmbench") and folder in _LANGUAGES:
        return _LANGUAGES[folder] != benchmark
    return False


def _root(benchmark: str, path: Path) -> Path:
    """Return the folder of the files that belong together. MMMU has one for each subject."""
    folder = path.parent
    if folder.name == parquet.split_of(path):  # converted by Hugging Face: <config>/<split>/0000
        folder = folder.parent
    return folder.parent if benchmark == "mmmu" and folder.name in DISCIPLINES else folder


def _with_shards(path: Path) -> Iterator[Path]:
    """Yield a file, or all files of its split."""
    split = parquet.split_of(path) if path.suffix == ".parquet" else ""
    if not split:
        yield path
        return
    for one in sorted(_listed(path.parent)):
        if one.suffix == ".parquet" and parquet.split_of(one) == split:
            yield one


def named_benchmark(stem: str) -> str:
    """Return the benchmark that the name of a TSV file or data set belongs to; "" for others."""
    lower = stem.lower().replace("documentvqa", "docvqa")
    start = next((one for one in _STARTS if lower.startswith(one)), "")
    words = [word for word in re.split(r"[_.-]", lower[len(start) :]) if word]
    if not start or not all(_WORDS.fullmatch(word) for word in words):
        return ""
    return "mmbench_cn" if start == "mmbench" and "cn" in words else _STARTS[start]


def _own_name(benchmark: str, path: Path) -> str:
    """Return the name for the results of a file that was named by its path."""
    if path.suffix.lower() != ".tsv":
        return benchmark
    if named_benchmark(path.stem):
        return f"{benchmark}_v11" if "v11" in path.stem.lower() else benchmark
    return re.sub(r"[^\w-]+", "-", path.stem).strip("-")[:60] or "questions"


def _read(source: _Source, name: str, *, answers_needed: bool) -> Data:
    """Read and check all questions of a source. With the name "" it is named after its file."""
    path = source.paths[0]
    suffix = path.suffix.lower()
    pictures: list[Picture | str] = []
    if suffix == ".tsv":
        benchmark, rows, files, notices = _from_tsv(source)
    elif suffix == ".json":
        benchmark = source.benchmark or benchmark_of_json(path)
        _check_known(benchmark, path, LAYOUTS)
        rows, files, pictures = read_original(benchmark, path)
        notices = ()
    elif suffix == ".parquet":
        benchmark, rows, files = _from_parquet(source, answers_needed=answers_needed)
        notices = ()
    else:
        raise DataError(
            "{file} is not a TSV, JSON or parquet file.",
            hint="Use a file of the benchmark in one of these formats.",
            file=escape_line(path.name),
        )
    items = items_of(benchmark, rows)
    if answers_needed:
        _check_answers(benchmark, path, items)
    check_pictures(pictures)
    files = [_compared(file) for file in files]
    found = Data(
        benchmark=benchmark,
        name=name or _own_name(benchmark, path),
        files=tuple(files),
        items=tuple(items),
    )
    remarks = [*notices, *_file_notices(found), *item_notices(benchmark, items)]
    return replace(found, notices=tuple(remarks))


def _check_known(benchmark: str, path: Path, kinds: Iterable[str]) -> None:
    if benchmark not in kinds:
        raise DataError(
            "The questions in {file} are not in the layout of a known benchmark.",
            hint="Use the file of the benchmark's authors, or a TSV file as VLMEvalKit has them.",
            file=escape_line(path.name),
        )


def _from_tsv(
    source: _Source,
) -> tuple[str, Sequence[Row], list[DataFile], tuple[Text, ...]]:
    path = source.paths[0]
    named = named_benchmark(path.stem)
    if source.benchmark not in ("", "vqa", named) and named:
        raise _of_another(path, named, source.benchmark)
    found = read_tsv(path)
    benchmark = source.benchmark or named
    notices = found.notices
    if not benchmark:
        benchmark = _by_content(found.columns, found.rows)
        read_as = Text(
            "{file} has no name of a benchmark; by its columns it is read as {title}.",
            file=escape_line(path.name),
            title=BENCHMARKS[benchmark].title,
        )
        notices = (*notices, read_as)
    return benchmark, found.rows, [found.file], notices


def _by_content(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Return the benchmark of a TSV file with another name, by its columns and labels."""
    categories = {row.labels.get("category", "") for row in rows}
    if set(_OPTIONS) <= set(columns):
        if categories <= set(DISCIPLINES):
            return "mmmu"
        return "mmbench_cn" if _is_chinese(rows) else "mmbench"
    if {row.labels.get("split", "") for row in rows} <= {"test_human", "test_augmented"}:
        return "chartqa"
    if categories <= OCRBENCH_CATEGORIES:
        return "ocrbench"
    if {word for names in categories for word in names.split(",")} <= MMVET_CAPABILITIES:
        return "mmvet"
    return "textvqa" if all(_has_ten(row.answer) for row in rows) else "vqa"


def _has_ten(answer: object) -> bool:
    """Return whether an answer is the ten of TextVQA."""
    return isinstance(answer, str) and len(list_of_texts(answer) or ()) == 10


def _is_chinese(rows: Sequence[Row]) -> bool:
    return 2 * sum(bool(_CHINESE.search(row.question)) for row in rows) > len(rows)


def _from_parquet(
    source: _Source, *, answers_needed: bool
) -> tuple[str, Sequence[Row], list[DataFile]]:
    path = source.paths[0]
    kind = parquet.benchmark_of(path)
    wanted = source.benchmark
    folder = path.parent.name.lower()
    benchmark = _LANGUAGES.get(folder, kind) if kind == "mmbench" else kind
    if "infographic" in folder or not benchmark:
        raise DataError(
            "{file} in {folder} belongs to no benchmark that is known here.",
            hint="Choose one of {names}.",
            file=escape_line(path.name),
            folder=escape_line(path.parent.name),
            names=", ".join(NAMES),
        )
    if kind == "mmbench" and folder not in _LANGUAGES:
        benchmark = wanted or kind
    if wanted and benchmark != wanted:
        raise _of_another(path, benchmark, wanted)
    if not (parquet.split_of(path) == "test" and not answers_needed):
        _check_split(benchmark, path)
    if shard := parquet.missing_shard(source.paths):
        raise DataError(
            "{folder} has no file {file}, which belongs to the others there.",
            hint="The download may be incomplete.",
            folder=path.parent,
            file=shard,
        )
    rows, files = parquet.read_parquet(benchmark, source.paths)
    if kind == "mmbench" and folder not in _LANGUAGES:
        found = "mmbench_cn" if _is_chinese(rows) else "mmbench"
        if wanted and found != wanted:
            raise _of_another(path, found, wanted)
        benchmark = found
    return benchmark, rows, files


def _of_another(path: Path, named: str, wanted: str) -> DataError:
    return DataError(
        "{file} has the questions of {named}, not of {wanted}.",
        hint="Name the other benchmark, or another file.",
        file=escape_line(path.name),
        named=named,
        wanted=wanted,
    )


def _check_split(benchmark: str, path: Path) -> None:
    """Raise DataError for a file of another split than the one that is asked."""
    split, right = parquet.split_of(path), parquet.SPLITS[benchmark.removesuffix("_cn")]
    if split in right or not re.fullmatch("train|val|validation|dev|test", split):
        return
    raise DataError(
        "{file} has no answers (its authors keep them); take the files of the split {right!r}."
        if split == "test"
        else "{file} is the split {split!r}, but {title} is asked with the split {right!r}.",
        hint="Name a file of that split, or the folder.",
        file=escape_line(path.name),
        split=split,
        title=BENCHMARKS[benchmark].title,
        right=right[0],
    )


def _check_answers(benchmark: str, path: Path, items: Sequence[Item]) -> None:
    if any(item.answers for item in items):
        check_answers(items)
        return
    layout = LAYOUTS.get(benchmark)
    instead = _instead_of(path) or next(
        (name for name, one in KNOWN_FILES.items() if one.benchmark == benchmark), ""
    )
    if path.suffix == ".json" and layout is not None and layout.instead:
        instead = layout.instead
    if not instead:
        raise DataError(
            "{file} has no answers.", hint="Add a column 'answer'.", file=escape_line(path.name)
        )
    raise DataError(
        "{file} has no answers (its authors keep them); take the validation file, {instead}."
        if path.name in KNOWN_FILES or path.suffix != ".tsv"
        else "{file} has no answers; take {instead}.",
        hint="With --export, answers for a server can be written without a score.",
        file=escape_line(path.name),
        instead=instead,
    )


def _compared(file: DataFile) -> DataFile:
    known = KNOWN_FILES.get(file.path.name)
    return replace(file, known=file.md5 in known.md5 if known and known.md5 else None)


def _file_notices(data: Data) -> Iterator[Text]:
    for file in data.files:
        if file.known is False:
            yield Text(
                "{file} is not one of the published editions (its md5 is {md5}).",
                file=escape_line(file.path.name),
                md5=file.md5,
            )
    count, all_ = count_questions(countable(data)), BENCHMARKS[data.benchmark].questions
    if all_ is not None and count != all_:
        yield Text(
            "{file} has {count} questions; the published set of {title} has {all}.",
            file=escape_line(data.files[0].path.name),
            count=count,
            title=BENCHMARKS[data.benchmark].title,
            all=all_,
        )


def _nothing_found(benchmark: str, looked: Sequence[Path]) -> DataError:
    if not benchmark or benchmark == "vqa":
        return DataError(
            "{folder} has no files of a known benchmark.",
            hint="Name the data file itself.",
            folder=looked[0],
        )
    file = next(name for name, one in KNOWN_FILES.items() if one.benchmark == benchmark)
    arrow = _arrow_cache(benchmark)
    hint = Text(
        "Put {file} into {folder}, or name a file or folder with --data.",
        file=file,
        folder=expand_home("~/LMUData"),
    )
    if arrow is not None:
        hint = Text(
            "The Arrow files in {cache} are not read: download the data set into {hub} with "
            "`hf download --repo-type dataset`, or name a file or folder with --data.",
            cache=arrow,
            hub=_hub_folders()[0],
        )
    return DataError(
        "No files of {title} were found in {places}.",
        hint=hint,
        title=BENCHMARKS[benchmark].title,
        places=", ".join(str(one) for one in looked),
    )


def _arrow_cache(benchmark: str) -> Path | None:
    """Return the folder of the library `datasets` that has the benchmark, if there is one."""
    named = os.environ.get("HF_DATASETS_CACHE")
    folder = expand_home(named) if named else _cache_home() / "datasets"
    wanted = benchmark.removesuffix("_cn")
    for one in _listed(folder):
        name = one.name.rpartition("___")[2].replace("_", "")  # "DocVQA" is "doc_vqa" there
        if named_benchmark(name).removesuffix("_cn") == wanted:
            return one
    return None


def path_exists(path: Path) -> bool:
    """Return whether there is such a file or folder; False if the system rejects the name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing if it can't be read."""
    try:
        return list(folder.iterdir())
    except (OSError, ValueError):
        return []


def _files_of(folder: Path, *, depth: int) -> list[Path]:
    """Return all files below a folder, sorted. Raises DataError for too many folders."""
    found: list[Path] = []
    for count, (place, folders, names) in enumerate(os.walk(folder)):
        here = Path(place)
        if count > _MOST_FOLDERS:
            raise DataError(
                "{folder} has too many folders to search.",
                hint="Name the data file with --data.",
                folder=folder,
            )
        if len(here.relative_to(folder).parts) >= depth:
            folders.clear()
        folders.sort()
        matching = (here / name for name in names if name.lower().endswith(_SUFFIXES))
        found += [one for one in matching if is_file(one)]
    return sorted(found)


_SUFFIXES = (".tsv", ".json", ".parquet")
