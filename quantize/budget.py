"""How many bytes there are, and on which matrices those beyond NF4 are spent.

Pure arithmetic: sizes and measured gains in, choices out.
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
    """What the weights may take.

    text  as the user wrote it
    One of: share more than plain NF4, bits per weight over all tensors, bytes of all files.
    """

    text: str
    share: float | None = None
    bits: float | None = None
    nbytes: int | None = None

    def limit(self, plain_bytes: int, weights: int) -> int:
        """Return the bytes; UsageError when plain NF4 already takes more.

        weights  of all tensors, those that stay in 16 bits included
        """
        if self.share is not None:
            return int(plain_bytes * (1 + self.share))
        limit = self.nbytes if self.bits is None else int(self.bits * weights / 8)
        assert limit is not None
        if limit < plain_bytes:
            raise UsageError(
                "A budget of {value} is {most}, but plain NF4 takes "
                "{size} ({bits:.3f} bits per weight).",
                hint="Use a larger budget, or make lm_head smaller (--lm-head nf4).",
                value=self.text,
                most=format_bytes(limit),
                size=format_bytes(plain_bytes),
                bits=8 * plain_bytes / weights,
            )
        return limit


def parse_budget(text: str) -> ByteBudget:
    """Read "+5%", "4.6bits" or a size like "12.0GiB"; raises UsageError for anything else."""
    if match := _SHARE.fullmatch(text.strip()):
        return ByteBudget(text=text.strip(), share=float(match[1]) / 100)
    if match := _BITS.fullmatch(text.strip()):
        return ByteBudget(text=text.strip(), bits=float(match[1]))
    try:
        return ByteBudget(text=text.strip(), nbytes=parse_bytes(text))
    except UsageError as error:
        raise UsageError(
            "{value!r} is not a budget.", hint="Write it like +5%, 4.6bits or 12.0GiB.", value=text
        ) from error
