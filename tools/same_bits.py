"""Prove that this tree computes the same bits as another revision.

    python tools/same_bits.py REVISION

The revision is written to a temporary folder. The C extension of both trees is built, in place. The
same probe then runs with each tree and hashes what it gets through the public interface: features
and logits of the golden checkpoint and of the demo model, the files that `quantize` writes, answers
of the demo model, and plans. Exit code 0 if all hashes are equal; otherwise 1, with a table of the
differences. Times, versions and the wording of sentences are not compared; the numbers in sentences
are.

Both trees run with this Python and its packages, on the CPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = "from setuptools import setup; setup()"

STREAMED_RAM = "426MiB"
"""Enough for the demo model's caches and scratch, but not for all of its weights."""

QUANTIZED = {
    "nf4": ["--calibrate", "none"],
    "nf4, lm_head too": ["--calibrate", "none", "--lm-head", "nf4"],
    "nf4, 32-bit scales": ["--calibrate", "none", "--no-double-quant"],
    "nf4, some int8": ["--calibrate", "none", "--keep", "vision-tower=int8"],
    "calibrated": [
        *("--calibrate", "built-in", "--samples", "8"),
        *("--budget", "+5%", "--device", "cpu"),
    ],
}
"""Name of a folder made from the demo model -> options of `quantize`."""

PLANS = (
    "--card|RTX 4090|--ram|64GiB",
    "--card|RTX 3060|--vram|8GiB|--ram|32GiB",
    "--card|RTX 3050|--vram|4GiB|--ram|16GiB",
    "--card|RTX 3080|--vram|16GiB|--ram|32GiB|--parallel|4",
    "--card|RTX 3080|--vram|8GiB,6GiB|--ram|16GiB|--kv|int8|--context|4096",
    "--card|RTX 3060|--vram|12GiB|--ram|8GiB|--lm-head|nf4|--no-picture",
    "--device|cpu|--ram|10GiB",
    "--device|cpu|--ram|6GiB",
)
"""Options of `plan 19b`."""

# fmt: off
PROSE = frozenset((
    "hint", "message", "remark", "remarks", "summary", "machine", "budget", "source",
    "calibration", "dropped", "text",
))
# fmt: on
"""Keys of JSON whose value is a sentence or several: only the numbers in them are compared."""

LEFT_OUT = frozenset(("tool", "seconds", "date", "written", "version", "texts"))
"""Keys of JSON that are not compared: versions, times, and the templates of sentences."""

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def main() -> int:
    """Compare the two trees; return 0 if they agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", nargs="?", help="a commit, tag or branch to compare with")
    parser.add_argument("--probe", type=Path, metavar="TREE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        for name, value in probe(options.probe):
            print(f"{value}\t{name}", flush=True)
        return 0
    if not options.revision:
        parser.error("REVISION is missing")
    with tempfile.TemporaryDirectory(prefix="same-bits-") as place:
        other = check_out(options.revision, Path(place) / "tree")
        for tree in (other, ROOT):
            build_extension(tree)
        print(f"{options.revision}: hashing", flush=True)
        theirs = hashes(other)
        print("this tree: hashing", flush=True)
        ours = hashes(ROOT)
    return report(ours, theirs)


def check_out(revision: str, folder: Path) -> Path:
    """Write the files of a revision to a folder and return it."""
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


def build_extension(tree: Path) -> None:
    """Build the C extension in a tree; exit with the compiler's messages if that fails.

    Objects go to a temporary folder and all sources are compiled: a library older than the sources
    would show differences that are not there, or hide some.
    """
    with tempfile.TemporaryDirectory(prefix="same-bits-") as objects:
        build = [sys.executable, "-c", BUILD, "--quiet", "build_ext", "--inplace", "--force"]
        done = subprocess.run(
            [*build, "--build-temp", objects], cwd=tree, check=False, capture_output=True, text=True
        )
    if done.returncode:
        raise SystemExit(f"The C extension of {tree} can't be built.\n{done.stderr}")


def hashes(tree: Path) -> dict[str, str]:
    """Run the probe with one tree; return name -> hash."""
    if not [*tree.glob("cogvlm2_lite/weights/kernels/*.so"), *tree.glob("cogvlm2_lite/**/*.pyd")]:
        print("This tree has no C extension: torch's operators are compared.")
    with tempfile.TemporaryDirectory(prefix="same-bits-") as place:
        done = subprocess.run(
            [sys.executable, __file__, "--probe", str(tree)],
            cwd=place,
            env=_environment(tree, Path(place)),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"The probe failed with {tree}.")
    rows = (line.split("\t", 1) for line in done.stdout.splitlines())
    return {name: value for value, name in rows}


def _environment(tree: Path, place: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(tree),
        "COGVLM2_LITE_CACHE": str(place / "cache"),
        "COGVLM2_LITE_DATA": str(place / "data"),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def report(ours: dict[str, str], theirs: dict[str, str]) -> int:
    """Print the differences; return 0 if there are none."""
    names = sorted(ours.keys() | theirs.keys())
    different = [name for name in names if ours.get(name) != theirs.get(name)]
    print(f"{len(names) - len(different)} of {len(names)} hashes are equal")
    if not different:
        return 0
    print(f"\n{'there':<18}{'here':<18}what")
    for name in different:
        print(f"{theirs.get(name, 'missing')[:16]:<18}{ours.get(name, 'missing')[:16]:<18}{name}")
    return 1


# The probe: it runs in a process of its own, with the tree under test first on the import path.


def probe(tree: Path) -> Iterator[tuple[str, str]]:
    """Yield (what, hash) of everything that must not change."""
    import cogvlm2_lite

    found = Path(cogvlm2_lite.__file__).resolve().parents[1]
    if found != tree.resolve():
        raise SystemExit(f"imported {found}, not {tree}")
    yield from _goldens()
    demo = tree / "cogvlm2_lite" / "demo"
    folders = {"bf16": demo / "checkpoint"}
    for number, (name, options) in enumerate(QUANTIZED.items()):
        folders[name] = Path(f"quantized-{number}")
        command = ["quantize", str(demo / "checkpoint"), str(folders[name]), "--yes", *options]
        _run(*command)
        yield from ((f"quantize, {name}: {file}", v) for file, v in _files(folders[name]))
        verified = json.loads(_run("verify", str(folders[name]), "--json").splitlines()[-1])
        yield f"verify, {name}", _json_hash(verified)
    for name, folder in folders.items():
        yield from ((f"demo, {name}: {what}", v) for what, v in _numbers(folder))
    for name in ("bf16", "nf4", "calibrated"):
        for ram in (None, STREAMED_RAM):
            memory = f"--ram {ram}" if ram else "resident"
            for what, value in _answers(folders[name], demo / "pictures", ram):
                yield f"answers, {name}, {memory}: {what}", value
    for picture in ("sign.png", "chart.png"):
        command = ["ask", str(folders["nf4"]), str(demo / "pictures" / picture), "What is this?"]
        last = json.loads(_run(*command, "--device", "cpu", "--json").splitlines()[-1])
        yield f"ask {picture}", _hash(json.dumps([last["text"], last["reason"]]))
    for line in PLANS:
        plan = json.loads(_run("plan", "19b", *line.split("|"), "--json"))
        yield f"plan 19b {line.replace('|', ' ')}", _json_hash(plan)


def _goldens() -> Iterator[tuple[str, str]]:
    """Features and logits of the golden checkpoint, in both types and both RoPE modes."""
    import torch
    from safetensors.torch import load_file

    import cogvlm2_lite

    golden = ROOT / "tests" / "golden" / "a"
    given = load_file(golden / "golden_fp32.safetensors")
    for dtype in ("float32", "bfloat16"):
        for rope in ("reference", "exact"):
            model = cogvlm2_lite.load(golden / "checkpoint", device="cpu", dtype=dtype, rope=rope)
            images = [model.encode_image(given[f"in.{name}"]) for name in ("image", "image2")]
            how = f"golden, {dtype}, {rope}"
            yield f"{how}: features", _tensor_hash(torch.cat(images))
            cases = {
                "one_image": images[0],
                "text_only": None,
                "multi_turn": images[0],
                "image_mid": images[0],
                "two_images": torch.cat(images),
            }
            for case, features in cases.items():
                ids, types = given[f"{case}.input_ids"], given[f"{case}.token_type_ids"]
                logits = model.forward(ids, types, image_features=features)
                yield f"{how}: logits of {case}", _tensor_hash(logits)
            logits = model.forward(
                given["leftpad.input_ids"],
                given["leftpad.token_type_ids"],
                image_features=torch.cat((images[0], images[0])),
                attention_mask=given["leftpad.attention_mask"],
            )
            real = given["leftpad.attention_mask"] == 1
            yield f"{how}: logits of leftpad", _tensor_hash(logits[real])


def _numbers(folder: Path) -> Iterator[tuple[str, str]]:
    """Features of a random picture, and logits of prompts without and with it."""
    import torch

    import cogvlm2_lite

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    size, vocab = config["vision_config"]["image_size"], config["vocab_size"]
    chance = torch.Generator().manual_seed(5)
    picture = torch.randn(1, 3, size, size, generator=chance)
    for dtype in ("float32", "bfloat16"):
        model = cogvlm2_lite.load(folder, device="cpu", dtype=dtype)
        features = model.encode_image(picture)
        yield f"{dtype}, features", _tensor_hash(features)
        for tokens in (1, 3, 17, 70):  # each uses another kernel on some processors
            ids = torch.randint(vocab, (1, tokens), generator=chance)
            yield f"{dtype}, logits of {tokens} tokens", _tensor_hash(model.forward(ids))
        image_tokens = features.shape[1]
        ids = torch.randint(vocab, (1, image_tokens + 12), generator=chance)
        types = torch.zeros_like(ids)
        types[:, 1 : 1 + image_tokens] = 1
        logits = model.forward(ids, types, image_features=features)
        yield f"{dtype}, logits behind a picture", _tensor_hash(logits)


def _answers(folder: Path, pictures: Path, ram: str | None) -> Iterator[tuple[str, str]]:
    """Token ids and texts of all shipped questions: greedy, and drawn with a seed."""
    import cogvlm2_lite

    drawn = cogvlm2_lite.Sampling(temperature=1.0, top_p=0.95, top_k=50, seed=7, max_new_tokens=40)
    penalties = cogvlm2_lite.Sampling(
        repetition_penalty=1.2, frequency_penalty=0.5, max_new_tokens=40
    )
    content = json.loads((pictures / "pictures.json").read_text(encoding="utf-8"))
    for kv in ("full", "int8"):
        model = cogvlm2_lite.load(folder, device="cpu", ram=ram, kv=kv)
        for entry in content["pictures"]:
            for number, asked in enumerate(entry["questions"]):
                settings = {"greedy": cogvlm2_lite.Sampling(max_new_tokens=64), "drawn": drawn}
                if number == 0:
                    settings["with penalties"] = penalties
                for how, sampling in settings.items():
                    *_, last = model.answer(
                        asked["question"],
                        image=pictures / entry["file"],
                        history=[tuple(turn) for turn in asked["history"]],
                        sampling=sampling,
                    )
                    result: Any = last
                    value = [list(result.token_ids), result.text, result.reason.value]
                    yield f"kv {kv}, {entry['file']} {number}, {how}", _hash(json.dumps(value))


def _run(*arguments: str) -> str:
    """Run a command of the tree under test; return its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "cogvlm2_lite", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Hash the files of a quantized folder, except its HTML page, which is prose."""
    for path in sorted(folder.iterdir()):
        if path.name.endswith(("manifest.json", "report.json")):
            yield path.name, _json_hash(json.loads(path.read_text(encoding="utf-8")))
        elif path.suffix != ".html":
            yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def _json_hash(content: Any) -> str:
    return _hash(json.dumps(_without_prose(content), sort_keys=True))


def _without_prose(content: Any) -> Any:
    """Return JSON without what may differ: times, versions, wording, hashes of files with them."""
    if isinstance(content, dict):
        return {
            key: _numbers_of(value) if key in PROSE else _without_prose(value)
            for key, value in content.items()
            if key not in LEFT_OUT and not key.startswith("quantization_report")
        }
    return [_without_prose(item) for item in content] if isinstance(content, list) else content


def _numbers_of(prose: Any) -> Any:
    """Return the numbers in a sentence or in a list of them; anything else without prose."""
    if isinstance(prose, str):
        return NUMBER.findall(prose)
    if isinstance(prose, list):
        return [_numbers_of(item) for item in prose]
    return _without_prose(prose)


def _tensor_hash(tensor: Any) -> str:
    import torch

    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
