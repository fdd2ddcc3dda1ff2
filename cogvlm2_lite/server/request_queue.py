"""A bounded queue of requests for the engine that is fair to all clients."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.text import Text


class RequestQueue:
    """Passes as many requests to the engine as it answers at once. Use it in one event loop only.

    Clients take turns: a hundred requests of one client delay another client's request by one
    answer at most.

    max_waiting  requests that may wait; further ones get ApiError 429
    """

    def __init__(self, max_waiting: int) -> None:
        self._most = max_waiting
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._taken = 0
        self._slots = 1

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    @property
    def slots(self) -> int:
        """Requests that may be in the engine at once."""
        return self._slots

    def set_slots(self, slots: int) -> None:
        """Set how many requests may be in the engine at once; those that are in it stay."""
        self._slots = slots
        self._fill_slots()

    async def acquire(
        self,
        client: str,
        *,
        retry_after: int,
        admitted: bool = False,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait for a slot; `release` must follow. Raises ApiError 429 if too many wait.

        admitted  wait even if too many do: work of this request has been through the queue
        on_wait   called if there is no free slot and the queue has a place

        A caller that is cancelled while it waits leaves the queue.
        """
        if self._taken < self._slots:
            self._taken += 1
            return
        if self.waiting >= self._most and not admitted:
            raise ApiError(
                429,
                Text("{count} requests are already waiting.", count=self.waiting),
                "queue_full",
                retry_after=retry_after,
            )
        on_wait()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release()  # it got the slot at the same moment
            raise
        finally:
            self._forget(client, future)

    def release(self) -> None:
        """Free a slot; it goes to the next client in the rotation."""
        self._taken -= 1
        self._fill_slots()

    def _fill_slots(self) -> None:
        while self._taken < self._slots and (future := self._next()) is not None:
            self._taken += 1
            future.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        """Remove and return the next request."""
        for client in list(self._waiting):
            queue = self._waiting[client]
            while queue:
                future = queue.popleft()
                if not future.done():
                    self._waiting.move_to_end(client)
                    return future
        return None

    def _forget(self, client: str, future: asyncio.Future[None]) -> None:
        queue = self._waiting.get(client)
        if queue is None:
            return
        if future in queue:
            queue.remove(future)
        if not queue:
            del self._waiting[client]
