"""Compare our decoder with other decoders: python tools/sweep_pictures.py FOLDER

Every picture file below FOLDER is decoded by `open_image` and by those of these decoders that are
installed and can read the file: chromium (with playwright), libvips (`pyvips[binary]`),
OpenCV (`opencv-python-headless`). None of them shares code with Pillow's Python side or with
`cogvlm2_lite/inputs/`. The table counts, per format and variant, the files that are

  equal      of 99 % of the pixels, every channel is within 5 of 255 of another decoder's
  noticed    not equal, but a notice tells why (an early end, another ground, another frame)
  different  not equal to any decoder that reads the file
  alone      read by us only
  refused    an error with a reason, counted below the table; "also" of them no other decoder reads
  failed     another exception, a crash, or more than 60 seconds

Test pictures of public libraries (Pillow, libvips, image-rs, TwelveMonkeys, bmpsuite) are a good
FOLDER. `--mutations N` decodes N damaged copies of each file, too, and reports only failures.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import random
import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script

from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.inputs.failures import picture_kind
from cogvlm2_lite.inputs.formats import kind_of
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.inputs.png import read_png
from cogvlm2_lite.inputs.tiff import find_pages
from cogvlm2_lite.inputs.tiff_tags import Tag

TOLERANCE, PERCENTILE = 5, 99
MOST_SECONDS = 60
MOST_PIXELS = 40_000_000
COLUMNS = ("files", "equal", "noticed", "different", "alone", "refused", "also", "failed")
_BROWSER_KINDS = ("JPEG", "PNG", "GIF", "WebP", "BMP", "AVIF")
_DRAW = """async (url) => {
  const image = new Image();
  image.src = url;
  try { await image.decode(); } catch { return null; }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { colorSpace: "srgb" });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  return canvas.toDataURL("image/png").slice(22);
}"""

Pixels = NDArray[np.uint8]
Decoder = Callable[[Path], Pixels | None]


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What our decoder made of a file: pixels, a reason for refusing it, or a failure."""

    pixels: Pixels | None = None
    notices: tuple[str, ...] = ()
    refused: str = ""
    failed: str = ""


def main() -> int:
    """Print the table; the exit status is 1 if a file failed."""
    options = _options()
    files = [f for f in sorted(options.folder.rglob("*")) if f.is_file() and kind_of(f.name)]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    with ExitStack() as stack:
        decoders = dict(_installed(stack))
        print("Other decoders:", ", ".join(decoders) or "none")
        ours = stack.enter_context(_Processes())
        for number, file in enumerate(files):
            row = counts[variant(file)]
            row["files"] += 1
            result = ours.decode(file)
            outcome, note = _compared(file, result, decoders)
            row[outcome] += 1
            if outcome == "refused":
                reason = _general(result.refused, file.name)
                reasons[reason] += 1
                row["also"] += note == ""
            if outcome == "failed" or (options.details and outcome in options.details.split(",")):
                shown = note or result.failed or result.refused or "; ".join(result.notices)
                print(f"{outcome}: {file.relative_to(options.folder)}: {shown}", flush=True)
            for damaged in _mutations(file, options.mutations, number):
                if failed := ours.decode(damaged).failed:
                    row["failed"] += 1
                    print(f"failed: a damaged copy of {file}: {failed}", flush=True)
    _print_table(counts, reasons)
    return 1 if sum(row["failed"] for row in counts.values()) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare our decoder with other decoders.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--details", default="", help="list these outcomes: different,refused,...")
    parser.add_argument("--mutations", type=int, default=0, metavar="N")
    return parser.parse_args()


def variant(file: Path) -> str:
    """Return the format of a file and what is special about it, for a row of the table."""
    with file.open("rb") as stream:
        kind = picture_kind(stream.read(1024)) or "other"
        try:
            marks = _tiff_marks(stream) if kind == "TIFF" else _marks(stream, kind)
        except Exception:  # noqa: BLE001 - a broken file is no reason to stop the sweep
            marks = ["unknown"]
    return " ".join([kind, *marks])


def _tiff_marks(stream: object) -> list[str]:
    page = find_pages(stream)[0]
    bits = page.integer(Tag.BITS_PER_SAMPLE, 1)
    form = {2: "int", 3: "float"}.get(page.integer(Tag.SAMPLE_FORMAT), "")
    usual = bits in (1, 8) and not form
    marks = [] if usual else [f"{form}{bits}"]
    marks += ["planes"] * (page.integer(Tag.PLANAR_CONFIGURATION) == 2)
    marks += ["profile"] * (Tag.COLOR_PROFILE in page)
    return marks


def _marks(stream: object, kind: str) -> list[str]:
    if kind == "PNG":
        png = read_png(stream)
        return ["profile"] if png.colors.keys() & {b"iCCP", b"gAMA", b"cHRM", b"cICP"} else []
    stream.seek(0)
    with Image.open(stream) as image:
        return ["CMYK"] * (image.mode == "CMYK") + ["profile"] * ("icc_profile" in image.info)


class _Processes:
    """Decodes in a child process, which may crash or hang."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def decode(self, source: Path | bytes) -> Ours:
        """Return what `open_image` makes of a file."""
        self._pool = self._pool or ProcessPoolExecutor(1)
        try:
            return self._pool.submit(_decode, source).result(timeout=MOST_SECONDS)
        except TimeoutError:
            self._end()
            return Ours(failed=f"more than {MOST_SECONDS} s")
        except BrokenProcessPool:
            self._pool = None
            return Ours(failed="the process crashed")

    def _end(self) -> None:
        if self._pool is None:
            return
        for process in list((self._pool._processes or {}).values()):
            process.kill()
        self._pool.shutdown(cancel_futures=True)
        self._pool = None


def _decode(source: Path | bytes) -> Ours:
    try:
        opened = open_image(source)
    except ImageError as error:
        return Ours(refused=str(error.message))
    except Exception as error:  # noqa: BLE001 - this is what the sweep looks for
        return Ours(failed=repr(error)[:200])
    small = isinstance(source, bytes) or opened.rgb.size > 3 * MOST_PIXELS
    notices = tuple(map(str, opened.notices))
    return Ours(pixels=opened.rgb[:1, :1] if small else opened.rgb, notices=notices)


def _compared(file: Path, result: Ours, decoders: dict[str, Decoder]) -> tuple[str, str]:
    """Return the outcome for a file, and the differences to each decoder that reads it."""
    if result.failed:
        return "failed", result.failed
    others = {name: decode(file) for name, decode in decoders.items()}
    read = {name: pixels for name, pixels in others.items() if pixels is not None}
    if result.pixels is None:
        return "refused", f"{result.refused} ({', '.join(read)} read it)" if read else ""
    if not read:
        return "alone", ""
    differences = {name: difference(result.pixels, pixels) for name, pixels in read.items()}
    if min(differences.values()) <= TOLERANCE:
        return "equal", ""
    shown = ", ".join(f"{name} {value:.0f}" for name, value in differences.items())
    told = [n for n in result.notices if "frame 1 of" not in n and "page 1 of" not in n]
    told = [n for n in told if "times as" not in n]
    return ("noticed" if told else "different"), f"{shown} {result.pixels.shape} {told}"


def difference(one: Pixels, other: Pixels) -> float:
    """Return the difference that 99 % of the pixels do not exceed; 255 for other sizes."""
    if one.shape != other.shape:
        return 255.0
    steps = np.abs(one.astype(np.int16) - other).max(axis=2)
    return float(np.percentile(steps, PERCENTILE))


def _general(reason: str, name: str) -> str:
    """Return a reason without the name of the file and without numbers."""
    return re.sub(r"\d[\d.]*( x \d+)?", "N", reason.replace(name, "FILE"))


def _mutations(file: Path, count: int, seed: int) -> Iterator[bytes]:
    """Yield copies of a file with some bytes changed, and some of them cut."""
    random_numbers = random.Random(seed)
    data = file.read_bytes() if count else b""
    for _ in range(count if 0 < len(data) < 1_000_000 else 0):
        copy = bytearray(data)
        for _ in range(random_numbers.choice((1, 3, 20))):
            # Headers are short, and mistakes in them are the interesting ones.
            end = random_numbers.choice((len(copy), min(len(copy), 300)))
            copy[random_numbers.randrange(end)] = random_numbers.randrange(256)
        if random_numbers.random() < 0.3:
            del copy[random_numbers.randrange(len(copy)) :]
        yield bytes(copy)


def _installed(stack: ExitStack) -> Iterator[tuple[str, Decoder]]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium and importlib.util.find_spec("playwright"):
        yield "chromium", stack.enter_context(_browser(chromium))
    if importlib.util.find_spec("pyvips"):
        yield "libvips", _by_vips
    if importlib.util.find_spec("cv2"):
        yield "OpenCV", _by_opencv


@contextmanager
def _browser(program: str) -> Iterator[Decoder]:
    """Start chromium; return a decoder that draws a picture on a white canvas."""
    from playwright.sync_api import Error, Route, sync_playwright

    current: list[Path] = []

    def answer(route: Route) -> None:
        if route.request.url.endswith("/page"):
            route.fulfill(body="<!doctype html>", content_type="text/html")
        else:
            route.fulfill(body=current[0].read_bytes(), content_type="image/*")

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--force-color-profile=srgb"]
        )
        page = browser.new_page()
        page.route("**/*", answer)
        page.goto("http://pictures.test/page")

        def decode(file: Path) -> Pixels | None:
            with file.open("rb") as stream:
                if picture_kind(stream.read(1024)) not in _BROWSER_KINDS:
                    return None
            current[:] = [file]
            try:
                drawn = page.evaluate(_DRAW, f"http://pictures.test/{hash(file)}")
            except Error:
                return None
            return _rgb(base64.b64decode(drawn)) if drawn else None

        yield decode
        browser.close()


def _rgb(png: bytes) -> Pixels | None:
    try:
        with Image.open(BytesIO(png)) as image:
            return np.asarray(image.convert("RGB"))
    except OSError:
        return None


def _by_vips(file: Path) -> Pixels | None:
    import pyvips

    try:
        image = pyvips.Image.new_from_file(str(file), access="sequential").autorot()
        if image.width * image.height > MOST_PIXELS:
            return None
        if image.get_typeof("icc-profile-data"):
            image = image.icc_transform("srgb", embedded=True, intent="perceptual")
        image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=[255, 255, 255])
        image = image.cast("uchar")[:3] if image.bands >= 3 else image.cast("uchar")[0]
        pixels = np.asarray(image.numpy())
    except pyvips.Error:
        return None
    return (
        pixels
        if pixels.ndim == 3 and pixels.shape[2] == 3
        else pixels.reshape(*pixels.shape[:2], 1).repeat(3, axis=2)
    )


def _by_opencv(file: Path) -> Pixels | None:
    import cv2

    try:
        pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if pixels is None or pixels.size > 3 * MOST_PIXELS:
        return None
    return np.asarray(pixels[:, :, ::-1])


def _print_table(counts: dict[str, Counter[str]], reasons: Counter[str]) -> None:
    whole: Counter[str] = Counter()
    print("| format |", " | ".join(COLUMNS), "|")
    print("| --- |", " | ".join("---:" for _ in COLUMNS), "|")
    for name, row in sorted(counts.items()):
        whole.update(row)
        print(f"| {name} |", " | ".join(str(row[column]) for column in COLUMNS), "|")
    print("| all |", " | ".join(str(whole[column]) for column in COLUMNS), "|")
    print()
    for reason, count in reasons.most_common():
        print(f"{count:5} {reason}")


if __name__ == "__main__":
    sys.exit(main())
