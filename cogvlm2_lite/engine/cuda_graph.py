"""Replays the work of a decode step on a GPU instead of launching its kernels one by one.

A step of the 19B model launches some 900 small kernels, and Python needs about as long to launch
them as a fast card to run them. Recorded once as a CUDA graph, all of them are one launch. A
recording knows addresses, not tensors: it is good as long as every weight and every cache buffer
stays where it is, and its inputs must be written where they were.

Nothing here is trusted: a step is recorded right after it ran in the ordinary way, replayed at
once, and thrown away for good unless the two results are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cogvlm2_lite.backends.base import Recorder, Recording


class Replayer:
    """Runs work that is repeated: twice in the ordinary way, from then on from a recording.

    trouble  why nothing is replayed any more; "" while there is no reason
    """

    def __init__(self, record: Recorder) -> None:
        self._record = record
        self._kept: WeakKeyDictionary[object, tuple[Hashable, Recording | None]] = (
            WeakKeyDictionary()
        )
        self.replayed = 0
        self.trouble = ""

    def describe(self) -> str:
        """Say in a few words what becomes of the steps."""
        return f"launched one by one: {self.trouble}" if self.trouble else "recorded and replayed"

    def run(self, owner: object, key: Hashable, work: Callable[[], Tensor]) -> Tensor:
        """Give the result of work.

        owner  whose work it is; one recording is kept for each owner, while it lives
        key    everything else that decides which addresses the work touches; the recording that is
               kept is that of the last key
        """
        if self.trouble:
            return work()
        last, recording = self._kept.get(owner, (None, None))
        if key != last:
            # Not recorded yet: a first step may still bring weights in, and may be the only one.
            self._kept[owner] = (key, None)
            return work()
        if recording is None:
            result = work()
            self._kept[owner] = (key, self._checked(work, result))
            return result
        recording.replay()
        self.replayed += 1
        return recording.output.clone()

    def _checked(self, work: Callable[[], Tensor], expected: Tensor) -> Recording | None:
        """Record work that just gave `expected`; None, and a reason, if that does not work here."""
        try:
            recording = self._record(work)
            recording.replay()
        except torch.OutOfMemoryError:
            self.trouble = "there is no memory for a recording"
            return None
        except RuntimeError as error:
            first_line = str(error).strip().partition("\n")[0]
            self.trouble = f"a decode step can't be recorded here: {first_line}"
            return None
        if not torch.equal(recording.output, expected):
            self.trouble = "a replayed decode step gave other numbers"
            return None
        return recording
