"""Runs decode steps on a GPU as CUDA graphs instead of launching their kernels one by one.

A step of the 19B model launches more than a thousand small kernels, and Python needs about as long
to launch them as a fast GPU needs to run them. Captured once as a CUDA graph, all of them are one
launch. A graph contains addresses, not tensors: it is valid as long as every weight and every cache
buffer stays at its address, and its inputs must be written to the same addresses. On a GPU the
buffers of a conversation stay as long as the model (`KVCache.fixed`), so its graphs do, too.

Every graph is checked: a step is captured right after an ordinary run and replayed immediately. If
the two results are not equal bit for bit, graphs are no longer used.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cogvlm2_lite.backends.base import CaptureGraph, Graph, NewCapture
from cogvlm2_lite.engine.replan import out_of_memory

MOST_GRAPHS = 16
"""Graphs of one owner. Each has its logits and about 1,000 nodes in the GPU's memory; they share
all other memory. One serves 256 tokens of a conversation (`KVCache.window`)."""

MOST_OWNERS = 16
"""Owners with graphs. Each has a stream of its own, and torch has 32 of them."""

_NO_MEMORY = "there is no memory for a graph"


@dataclass(kw_only=True)
class _Owned:
    """The graphs of one owner by key; None: the work ran once.

    All of them are captured on one stream, and they are forgotten together: torch 2.13 frees the
    memory in which cuBLAS works on a stream with any graph that was captured there, and the other
    graphs of the stream would go on using it. With a stream for each graph, torch 2.11 would keep
    that memory for ever.
    """

    capture: CaptureGraph | None = None
    graphs: dict[Hashable, Graph | None] = field(default_factory=dict)


class GraphCache:
    """Runs repeated work: twice without a graph, from then on as a graph.

    new_capture  makes what captures the graphs of an owner
    trouble      why graphs are no longer used; "" as long as they are used
    captures     graphs that were made
    replays      runs of graphs, without those that check them
    """

    def __init__(self, new_capture: NewCapture) -> None:
        self._new_capture = new_capture
        self._owned: WeakKeyDictionary[object, _Owned] = WeakKeyDictionary()
        self._layout: Hashable = None
        self._made = 0
        self._idle: list[CaptureGraph] = []
        """Those whose owners are gone: their streams are used again."""
        self.captures = self.replays = 0
        self.trouble = ""

    def describe(self) -> str:
        """Return a short text about how steps are run."""
        return f"launched one by one: {self.trouble}" if self.trouble else "CUDA graphs"

    def run(
        self, owner: object, key: Hashable, work: Callable[[], Tensor], *, layout: Hashable = None
    ) -> Tensor:
        """Return the result of work.

        owner   an object to which graphs belong; they are kept as long as it exists
        key     everything else that determines which addresses the work uses
        layout  the same for the work of all owners; another one makes all graphs useless
        """
        if self.trouble:
            return work()
        if layout != self._layout:
            self.forget_all()
            self._layout = layout
        owned = self._owned.setdefault(owner, _Owned())
        if key not in owned.graphs:
            # Not captured yet: a first step may still load weights, and may be the only one.
            if len(owned.graphs) >= MOST_GRAPHS:
                owned.graphs.clear()
            owned.graphs[key] = None
            return work()
        graph = owned.graphs[key]
        if graph is None:
            result = work()
            capture = owned.capture = owned.capture or self._capture_for(owner)
            if capture is not None:
                owned.graphs[key] = self._checked(capture, work, result)
            return result
        graph.replay()
        self.replays += 1
        return graph.output.clone()

    def forget(self, owner: object) -> None:
        """Release the graphs of an owner."""
        if owner in self._owned:
            self._owned[owner].graphs.clear()

    def forget_all(self) -> None:
        """Release all graphs, and the memory that they hold: addresses or the plan have changed.

        If there was no memory for a graph before, there may be some now.
        """
        for owned in self._owned.values():
            owned.graphs.clear()
        if self.trouble == _NO_MEMORY:
            self.trouble = ""

    def _capture_for(self, owner: object) -> CaptureGraph | None:
        """Return what captures the graphs of an owner; None: too many have graphs."""
        if not self._idle:
            if self._made == MOST_OWNERS:
                return None
            self._made += 1
            self._idle.append(self._new_capture())
        capture = self._idle.pop()
        weakref.finalize(owner, self._idle.append, capture).atexit = False
        return capture

    def _checked(
        self, capture: CaptureGraph, work: Callable[[], Tensor], expected: Tensor
    ) -> Graph | None:
        """Capture work that just returned `expected`. If it fails, set `trouble`, return None."""
        try:
            graph = capture(work)
            graph.replay()
        except RuntimeError as error:
            if out_of_memory(error):
                self.trouble = _NO_MEMORY
            else:
                first_line = str(error).strip().partition("\n")[0]
                self.trouble = f"a decode step can't be captured here: {first_line}"
        else:
            if torch.equal(graph.output, expected):
                self.captures += 1
                return graph
            self.trouble = "a replayed decode step gave different numbers"
        for owned in self._owned.values():
            owned.graphs.clear()
        return None
