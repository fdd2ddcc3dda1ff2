"""How far an answer is: its phase, the share of the phase that is done, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication

from cogvlm2_lite.events import ImageEncoded, Prefilled, Progress, Replanned, TextDelta
from cogvlm2_lite.units import format_bytes
from cogvlm2_lite.worker.client import Outcome
from gui.translatable import QT_TRANSLATE_NOOP
from gui.translation import fill

_LEAST_SHARE = 0.04
_LEAST_S = 1.0
"""Before this share and this time of a phase, its time left is not known well enough."""
_SLOW_S = 2.0
"""A token that takes so long is counted down: its weights are read from the disk."""
_TRUST = 0.2
"""Weight of a new estimate of the time left; the rest has the one before."""

_WORDS = {
    "start": QT_TRANSLATE_NOOP("Phase", "Preparing"),
    "load": QT_TRANSLATE_NOOP("Phase", "Loading"),
    "encode": QT_TRANSLATE_NOOP("Phase", "Looking at the picture"),
    "prefill": QT_TRANSLATE_NOOP("Phase", "Reading the question"),
    "resume": QT_TRANSLATE_NOOP("Phase", "Reading the answer so far"),
    "decode": QT_TRANSLATE_NOOP("Phase", "Answering"),
}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The state of a running answer.

    name         "start", "load", "encode", "prefill", "resume" (reading the answer that is
                 continued) or "decode"
    share        done, from 0 to 1; None while it is not known
    left_s       seconds to the end of the phase; of "decode", if the answer has its full length
    tokens       pieces of the answer so far
    token_s      seconds per piece; 0 while it is not known
    next_s       seconds to the next piece, where one takes long; None if that is not known
    token_share  done of the next token, from 0 to 1, where one takes long; None: not known
    held_bytes   memory in use; 0 if it is not known
    """

    name: str
    share: float | None = None
    left_s: float | None = None
    tokens: int = 0
    token_s: float = 0.0
    next_s: float | None = None
    token_share: float | None = None
    held_bytes: int = 0


class Estimate:
    """Follows the events of one answer.

    The share of a phase never goes back, unless the phase begins again because memory ran out. The
    time left follows the measured rate slowly, so that it does not jump.

    most_tokens  limit of the answer
    clock        returns seconds
    """

    def __init__(self, most_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most_tokens, clock
        self._name = "start"
        self._share: float | None = None
        self._first: tuple[float, float] | None = None  # share and time of the first event
        self._ends: float | None = None  # when the phase will have ended
        self._tokens, self._first_token, self._last_token = 0, 0.0, 0.0
        self._token_share: float | None = None
        self._token_began, self._token_s = 0.0, 0.0  # of the token that is computed, or before
        self._held = 0
        self._read = False

    def see(self, event: Outcome) -> None:
        """Take an event into account."""
        if isinstance(event, Progress) and event.phase == "decode":
            self._held = event.held_bytes or self._held
            if self._name != "resume":  # its share is that of all tokens
                self._see_token(event.done / max(event.total, 1))
        elif isinstance(event, Progress):
            name = "resume" if event.phase == "prefill" and self._read else event.phase
            self._held = event.held_bytes or self._held
            self._enter(name)
            self._advance(event.done / max(event.total, 1))
        elif isinstance(event, ImageEncoded):
            self._enter("prefill")
        elif isinstance(event, Prefilled):
            self._read = True
            self._enter("decode")
        elif isinstance(event, Replanned):
            self._share = self._ends = self._first = None
        elif isinstance(event, TextDelta):
            self._enter("decode")
            self._tokens += 1
            self._token_share = None
            self._last_token = self._token_began = self._clock()
            self._first_token = self._first_token or self._last_token
            self._advance(min(self._tokens / self._most, 1.0))

    def phase(self) -> Phase:
        """Return the state now."""
        left = None if self._ends is None else max(self._ends - self._clock(), 0.0)
        steps = self._tokens - 1
        token_s = (self._last_token - self._first_token) / steps if steps > 0 else self._token_s
        slow = self._name == "decode" and token_s >= _SLOW_S
        next_s = self._token_s if self._token_share else token_s  # its own rate, if it is known
        return Phase(
            name=self._name,
            share=self._share,
            left_s=left,
            tokens=self._tokens,
            token_s=token_s,
            next_s=max(self._token_began + next_s - self._clock(), 0.0) if slow else None,
            token_share=self._token_share if slow else None,
            held_bytes=self._held,
        )

    def _see_token(self, share: float) -> None:
        """Take the share of a token that takes long into account."""
        self._enter("decode")
        if share < (self._token_share or 0.0):  # the token before had no text
            self._token_began = self._clock()
        self._token_share = share
        if share > 0:
            self._token_s = (self._clock() - self._token_began) / share
        self._advance(min((self._tokens + share) / self._most, 1.0))

    def _enter(self, name: str) -> None:
        if name != self._name:
            self._name = name
            self._token_began = self._clock()
            self._share = self._ends = self._first = None

    def _advance(self, share: float) -> None:
        now = self._clock()
        self._share = max(share, self._share or 0.0)
        # Measured from the first event: what was before it may be the end of another phase.
        first, began = self._first = self._first or (share, now)
        gone, elapsed = self._share - first, now - began
        if elapsed < _LEAST_S or gone <= 0 or (gone < _LEAST_SHARE and self._name != "decode"):
            return
        ends = now + elapsed * (1 - self._share) / gone
        if self._ends is None or self._ends < now:
            self._ends = ends
        else:
            self._ends += _TRUST * (ends - self._ends)


def describe(phase: Phase) -> str:
    """Return a phase in words, for example "Looking at the picture: 43 %, about 20 s left"."""
    parts: list[str] = []
    if phase.name == "decode":
        if phase.token_s >= 1:
            parts.append(
                fill(
                    QCoreApplication.translate("Phase", "{seconds:.1f} s per token"),
                    seconds=phase.token_s,
                )
            )
            if phase.token_share is not None:
                parts.append(
                    fill(
                        QCoreApplication.translate("Phase", "next token {percent} %"),
                        percent=int(100 * phase.token_share),
                    )
                )
            if phase.next_s is not None and phase.next_s >= 1:
                time_left = format_left(phase.next_s)
                parts.append(
                    fill(QCoreApplication.translate("Phase", "the next in {time}"), time=time_left)
                )
        elif phase.token_s > 0:
            parts.append(
                fill(
                    QCoreApplication.translate("Phase", "{rate:.1f} tokens/s"),
                    rate=1 / phase.token_s,
                )
            )
        if phase.left_s is not None and phase.left_s >= 1:
            parts.append(
                fill(
                    QCoreApplication.translate("Phase", "at most {time} left"),
                    time=format_left(phase.left_s),
                )
            )
    else:
        if phase.share is not None:
            parts.append(
                fill(
                    QCoreApplication.translate("Phase", "{percent} %"),
                    percent=int(100 * phase.share),
                )
            )
        if phase.left_s is not None and phase.left_s >= 1:
            parts.append(
                fill(
                    QCoreApplication.translate("Phase", "about {time} left"),
                    time=format_left(phase.left_s),
                )
            )
    if phase.held_bytes:
        parts.append(format_bytes(phase.held_bytes))
    word = QCoreApplication.translate("Phase", _WORDS.get(phase.name, phase.name))
    return f"{word}: {', '.join(parts)}" if parts else f"{word}…"


def format_left(seconds: float) -> str:
    """Return a time that is left, as exactly as it is known: 7 s, 25 s, 3 min, 1 h 20 min."""
    if seconds < 10:
        return fill(QCoreApplication.translate("Phase", "{count} s"), count=max(round(seconds), 1))
    if seconds < 58:
        return fill(QCoreApplication.translate("Phase", "{count} s"), count=5 * round(seconds / 5))
    minutes = round(seconds / 60)
    if minutes < 60:
        return fill(QCoreApplication.translate("Phase", "{count} min"), count=minutes)
    hours, rest = divmod(5 * round(minutes / 5), 60)
    return fill(
        QCoreApplication.translate("Phase", "{hours} h {minutes} min"), hours=hours, minutes=rest
    )
