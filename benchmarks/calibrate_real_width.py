"""Measure a calibration at the real widths: time per block, and peak memory.

    python -m benchmarks.calibrate_real_width SCRATCH [--pictures 2] [--texts 6]

Makes a checkpoint of the released shapes with one vision layer, the projector and one decoder layer
(random weights), calibrates it with the command, and writes
benchmarks/results/calibrate_real_width.json. The time of running samples grows with their number,
that of rounding does not; so the time for the 19B model (63 vision layers, 32 decoder layers) can
be calculated. tools/write_quantization_docs.py writes the page. Needs 3 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.quantize_full_size import measure  # noqa: E402
from benchmarks.synthetic_19b import released_config, write_checkpoint  # noqa: E402
from cogvlm2_lite.samples.drawn import drawn_samples  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "calibrate_real_width.json"
TOKENIZER = ROOT / "cogvlm2_lite" / "demo" / "checkpoint" / "tokenizer.json"


def main() -> None:
    """Make the checkpoint, measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--texts", type=int, default=6)
    options = parser.parse_args()
    source, target = options.scratch / "source", options.scratch / "made"
    shutil.rmtree(target, ignore_errors=True)
    if not source.exists():
        write_checkpoint(source, released_config(1, 1), seed=1)
        # Any tokenizer works. All ids of the demo model's are in the real vocabulary.
        shutil.copy(TOKENIZER, source)
    samples = write_samples(options.scratch / "samples", options.pictures, options.texts)
    command = [sys.executable, "-m", "quantize", str(source), str(target), "--json", "--yes"]
    run = measure([*command, "--calibrate", str(samples), "--budget", "+0%"])
    assert run.exit_code == 0, run.events[-1:]
    parts = [e for e in run.events if e["event"] == "calibration"]
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "pictures": options.pictures,
        "texts": options.texts,
        "wall_s": round(run.wall_s, 1),
        "cpu_s": round(run.cpu_s, 1),
        "max_rss_bytes": run.max_rss_bytes,
        "anonymous_bytes": run.peak.get("RssAnon", 0),
        "blocks": {
            name: {
                kind: round(sum(e[kind] for e in parts if e["block"].startswith(f"{name},")), 3)
                for kind in ("look_s", "round_s")
            }
            for name in ("vision layer 0", "projector", "decoder layer 0")
        },
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def write_samples(folder: Path, pictures: int, texts: int) -> Path:
    """Write so many drawn pictures with one question each, and so many questions without one."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = drawn_samples(5 * (pictures + texts))
    shown = [s for s in drawn if s.image is not None][:pictures]
    plain = [s for s in drawn if s.image is None][:texts]
    lines = []
    for number, sample in enumerate(shown):
        sample.image.save(folder / f"{number}.png")  # type: ignore[union-attr]
        words = {"question": sample.question, "answer": sample.answer}
        lines.append(json.dumps({"image": f"{number}.png", **words}))
    lines += [json.dumps({"question": s.question, "answer": s.answer}) for s in plain]
    file = folder / "samples.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


if __name__ == "__main__":
    main()
