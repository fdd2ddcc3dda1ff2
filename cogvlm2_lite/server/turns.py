"""Whose turn it is: a bounded queue that goes round the clients."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from cogvlm2_lite.server.refusals import Refusal


class Turns:
    """Gives one request after the other the engine. For one event loop.

    Clients take turns, so a hundred questions of one delay another client's by one answer at most.

    most_waiting  requests that may wait; the next one is refused with 429
    """

    def __init__(self, most_waiting: int) -> None:
        self._most = most_waiting
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._taken = False

    @property
    def waiting(self) -> int:
        return sum(len(line) for line in self._waiting.values())

    @property
    def taken(self) -> bool:
        return self._taken

    async def take(self, client: str, *, retry_after: int) -> None:
        """Wait for the turn of a client; `give_back` must follow. Refusal 429 when too many wait.

        A caller that is cancelled while it waits leaves the line.
        """
        if not self._taken:
            self._taken = True
            return
        if self.waiting >= self._most:
            raise Refusal(
                429,
                f"{self.waiting} requests are waiting already.",
                "queue_full",
                retry_after=retry_after,
            )
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give_back()  # the turn came in the same moment
            raise
        finally:
            self._forget(client, future)

    def give_back(self) -> None:
        """Give the turn to the next client in the round."""
        for client in list(self._waiting):
            line = self._waiting[client]
            while line:
                future = line.popleft()
                if not future.done():
                    self._waiting.move_to_end(client)
                    future.set_result(None)
                    return
        self._taken = False

    def _forget(self, client: str, future: asyncio.Future[None]) -> None:
        line = self._waiting.get(client)
        if line is None:
            return
        if future in line:
            line.remove(future)
        if not line:
            del self._waiting[client]
