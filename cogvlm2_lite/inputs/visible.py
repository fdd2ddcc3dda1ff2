"""What a person sees of a picture: transparency, frames without content, extreme shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cogvlm2_lite.text import Text

EXTREME_SHAPE = 3.0
"""The ratio of the sides from which on a picture that is squashed to a square loses too much."""

_SMALL, _MEDIUM = 512, 1024
_NOTHING = 3
_FAINT = 40
_LIGHT = 220
_WHITE, _GREY, _BLACK = 255, 128, 0


def on_ground(rgb: Image.Image, alpha: Image.Image | None) -> tuple[Image.Image, Text | None]:
    """Return a picture on the ground on which its content can be seen, and a notice or None.

    That is white, as everywhere, but for light content, such as a white logo: black, or grey if
    there is dark content, too.
    """
    if alpha is None:
        return rgb, None
    least, most = alpha.getextrema()
    if least == 255:
        return rgb, None
    layer = rgb.copy()
    layer.putalpha(alpha)
    if most == 0:
        notice = Text("Every pixel of the picture is transparent, so there is nothing to see.")
        return _composite(layer, _WHITE), notice
    ground = _best_ground(layer)
    notices = {
        _GREY: Text("The picture has light parts on a transparent ground; it is shown on grey."),
        _BLACK: Text("The picture is light on a transparent ground; it is shown on black."),
    }
    return _composite(layer, ground), notices.get(ground)


def _best_ground(layer: Image.Image) -> int:
    """Return the grey on which the content can be seen.

    Light content is lost on white where it borders on transparency, and it is lost as a whole if it
    has little detail inside.
    """
    small = layer.copy()
    small.thumbnail((_SMALL, _SMALL), Image.Resampling.BOX)
    # Of a color that is not grey, the smallest channel tells it from white: yellow is visible.
    light = np.asarray(small.convert("RGB"), dtype=np.float32).min(axis=2)
    alpha = np.asarray(small.getchannel("A"), dtype=np.float32) / 255
    border = light_border = inside = 0.0
    for a, b, light_a, light_b in (
        (alpha[1:], alpha[:-1], light[1:], light[:-1]),
        (alpha[:, 1:], alpha[:, :-1], light[:, 1:], light[:, :-1]),
    ):
        step = np.abs(a - b)
        of_content = np.where(a > b, light_a, light_b)
        border += float(step.sum())
        light_border += float(step[of_content >= _LIGHT].sum())
        inside += float((np.abs(light_a - light_b) * np.minimum(a, b)).sum()) / 255
    if light_border <= 0.3 * border or light_border < 2 * inside:
        return _WHITE
    return _BLACK if light_border > 0.8 * border else _GREY


def _composite(layer: Image.Image, ground: int) -> Image.Image:
    below = Image.new("RGBA", layer.size, (ground, ground, ground, 255))
    return Image.alpha_composite(below, layer).convert("RGB")


def detail(small: Image.Image) -> float:
    """Return how much there is to see in a picture: the mean step between neighbours."""
    values = np.asarray(small, dtype=np.float32)
    steps = [np.abs(np.diff(values, axis=axis)) for axis in (0, 1) if values.shape[axis] > 1]
    return float(sum(step.mean() for step in steps))


def small_copy(frame: Image.Image) -> Image.Image:
    """Return a small copy of a frame, on white."""
    share = min(1.0, _MEDIUM / max(frame.size))
    size = (max(1, round(frame.width * share)), max(1, round(frame.height * share)))
    # Every few pixels of a large frame are enough, and cost little memory.
    small = frame.resize(size, Image.Resampling.NEAREST).convert("RGBA")
    small.thumbnail((_SMALL, _SMALL), Image.Resampling.BOX)
    return _composite(small, _WHITE)


def is_faint(small: Image.Image) -> bool:
    """Return whether a picture in RGB has nothing, or almost nothing, to see."""
    return bool((np.ptp(np.asarray(small), axis=(0, 1)) < _FAINT).all())


def nothing_to_see(pixels: NDArray[np.uint8]) -> Text | None:
    """Return a notice if a picture [height, width, 3] has one color only."""
    # Almost all pictures show their contrast in a few pixels.
    few = pixels[:: max(1, pixels.shape[0] // 32), :: max(1, pixels.shape[1] // 32)]
    for part in (few, pixels):
        flat = part.reshape(-1, 3)
        if (np.ptp(flat, axis=0) > _NOTHING).any():
            return None
    return Text("The picture has one color only, so there is nothing to see.")


def squashed(width: int, height: int) -> Text | None:
    """Return a notice if a picture is so tall or wide that the model may not recognize it."""
    ratio = max(width, height) / min(width, height)
    if ratio < EXTREME_SHAPE:
        return None
    template = (
        "The picture is {ratio} times as tall as wide. The model sees it squashed to a square, so "
        "small text may be unreadable."
        if height > width
        else "The picture is {ratio} times as wide as tall. The model sees it squashed to a "
        "square, so small text may be unreadable."
    )
    return Text(template, ratio=f"{ratio:.1f}".removesuffix(".0"))
