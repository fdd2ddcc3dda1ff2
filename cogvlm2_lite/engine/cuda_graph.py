"""Runs decode steps on a GPU as CUDA graphs instead of launching their kernels one by one.

A step of the 19B model launches about 720 small kernels, and Python needs about as long to launch
them as a fast GPU needs to run them. Captured once as a CUDA graph, all of them are one launch. A
graph contains addresses, not tensors: it is valid as long as every weight and every cache buffer
stays at its address, and its inputs must be written to the same addresses.

Every graph is checked: a step is captured right after an ordinary run and replayed immediately. If
the two results are not equal bit for bit, graphs are no longer used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cogvlm2_lite.backends.base import CaptureGraph, Graph


class GraphCache:
    """Runs repeated work: twice without a graph, from then on as a graph.

    trouble  why graphs are no longer used; "" as long as they are used
    """

    def __init__(self, capture: CaptureGraph) -> None:
        self._capture = capture
        self._kept: WeakKeyDictionary[object, tuple[Hashable, Graph | None]] = WeakKeyDictionary()
        self.replays = 0
        self.trouble = ""

    def describe(self) -> str:
        """Return a short text about how steps are run."""
        return f"launched one by one: {self.trouble}" if self.trouble else "CUDA graphs"

    def run(self, owner: object, key: Hashable, work: Callable[[], Tensor]) -> Tensor:
        """Return the result of work.

        owner  an object to which the graph belongs; one graph is kept per owner, as long as the
               owner exists
        key    everything else that determines which addresses the work uses; the graph of the last
               key is kept
        """
        if self.trouble:
            return work()
        last, graph = self._kept.get(owner, (None, None))
        if key != last:
            # Not captured yet: a first step may still load weights, and may be the only one.
            self._kept[owner] = (key, None)
            return work()
        if graph is None:
            result = work()
            self._kept[owner] = (key, self._checked(work, result))
            return result
        graph.replay()
        self.replays += 1
        return graph.output.clone()

    def _checked(self, work: Callable[[], Tensor], expected: Tensor) -> Graph | None:
        """Capture work that just returned `expected`. If it fails, set `trouble`, return None."""
        try:
            graph = self._capture(work)
            graph.replay()
        except torch.OutOfMemoryError:
            self.trouble = "there is no memory for a graph"
            return None
        except RuntimeError as error:
            first_line = str(error).strip().partition("\n")[0]
            self.trouble = f"a decode step can't be captured here: {first_line}"
            return None
        if not torch.equal(graph.output, expected):
            self.trouble = "a replayed decode step gave different numbers"
            return None
        return graph
