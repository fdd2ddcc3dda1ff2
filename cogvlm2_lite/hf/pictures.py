"""Opens pictures in the forms in which programs for transformers pass them."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import httpx
import numpy as np
import torch
from transformers.image_transforms import to_pil_image

from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.inputs.image import OpenedImage, open_image

_TIMEOUT_S = 60
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{64,}=*\s*")
"""Base64 without a `data:` in front. Shorter texts are paths: no picture file is that small."""


def open_any(source: Any) -> OpenedImage:
    """Return the picture of a path, web address, data: URL, base64 text, PIL image or array.

    Files are read as every command reads them: upright, in sRGB, transparent parts on a ground.
    Raises ImageError.
    """
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return open_image(_from_array(source))
    if not isinstance(source, str):
        return open_image(source)
    scheme = source[:8].lower()
    if scheme.startswith(("http://", "https://")):
        return open_image(_download(source))
    if scheme.startswith("file://"):
        return open_image(Path(url2pathname(urlsplit(source).path)))
    if scheme.startswith("data:"):
        return open_image(_decode(source.partition(",")[2]))
    if _BASE64.fullmatch(source) and not _is_file(source):
        return open_image(_decode(source))
    return open_image(source)


def _from_array(pixels: np.ndarray[Any, Any]) -> Any:
    if pixels.ndim not in (2, 3):
        raise ImageError(
            "An array of the shape {shape} is not a picture.",
            hint="A picture has the shape [height, width, 3] or [3, height, width].",
            shape=list(pixels.shape),
        )
    try:
        return to_pil_image(pixels[:, :, None] if pixels.ndim == 2 else pixels)
    except (ValueError, TypeError) as error:
        raise ImageError("The array is not a picture: {why}.", why=error) from error


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero
        return False


def _decode(text: str) -> bytes:
    """Return the bytes of base64 text as people write it: line breaks, urlsafe, no padding."""
    plain = "".join(unquote(text).split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("The picture's base64 text is not valid: {why}.", why=error) from error


def _download(url: str) -> bytes:
    try:
        response = httpx.get(url, timeout=_TIMEOUT_S, follow_redirects=True)
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ImageError(
            "The picture {url} can't be downloaded: {why}.",
            hint="Save the picture to a file and use the path of that file.",
            url=url[:200],
            why=str(error).partition("\n")[0] or type(error).__name__,
        ) from error
    return response.content
