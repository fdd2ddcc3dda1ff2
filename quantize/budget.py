"""A byte budget: parse it, and return the bytes that it allows.

`quantize/calibration/` decides which matrices the bytes beyond NF4 are spent on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.units import format_bytes, parse_bytes

_SHARE = re.compile(r"\+(\d{1,4}(?:\.\d{1,6})?)\s*%", re.ASCII)
_BITS = re.compile(r"(\d{1,2}(?:\.\d{1,6})?)\s*bits?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ByteBudget:
    """The bytes that the weights may take.

    text  as the user wrote it
    Exactly one of the others is set: `share` over plain NF4 (0.05 is 5 % more), `bits` per weight
    over all tensors, `nbytes` of all files.
    """

    text: str
    share: float | None = None
    bits: float | None = None
    nbytes: int | None = None

    def limit(self, plain_bytes: int, weights: int) -> int:
        """Return the bytes of all files. Raises UsageError if plain NF4 already takes more.

        plain_bytes  of all files in plain NF4
        weights      number of weights in all tensors, including those that stay in 16 bits
        """
        if self.share is not None:
            return int(plain_bytes * (1 + self.share))
        limit = self._absolute(weights)
        if limit < plain_bytes:
            raise UsageError(
                "A budget of {value} is {most}, but plain NF4 takes "
                "{size} ({bits:.3f} bits per weight).",
                hint="Use a larger budget, or let it choose lm_head, too (--lm-head budget).",
                value=self.text,
                most=format_bytes(limit),
                size=format_bytes(plain_bytes),
                bits=8 * plain_bytes / weights,
            )
        return limit

    def allows(self, nbytes: int, weights: int) -> bool:
        """Return whether files of this size are within a budget that is not a share."""
        return nbytes <= self._absolute(weights)

    def _absolute(self, weights: int) -> int:
        limit = self.nbytes if self.bits is None else int(self.bits * weights / 8)
        assert limit is not None
        return limit


def parse_budget(text: str) -> ByteBudget:
    """Parse "+5%", "4.6bits" or a size like "12.0GiB"; raise UsageError for anything else."""
    if match := _SHARE.fullmatch(text.strip()):
        return ByteBudget(text=text.strip(), share=float(match[1]) / 100)
    if match := _BITS.fullmatch(text.strip()):
        return ByteBudget(text=text.strip(), bits=float(match[1]))
    try:
        return ByteBudget(text=text.strip(), nbytes=parse_bytes(text))
    except UsageError as error:
        raise UsageError(
            "Invalid budget: {value!r}.", hint="Write it like +5%, 4.6bits or 12.0GiB.", value=text
        ) from error
