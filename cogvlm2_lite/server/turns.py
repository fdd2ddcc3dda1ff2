"""Whose turn it is: a bounded queue that goes round the clients."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from cogvlm2_lite.server.refusals import Refusal


class Turns:
    """Gives requests the engine, as many at a time as it answers at once. For one event loop.

    Clients take turns, so a hundred questions of one delay another client's by one answer at most.

    most_waiting  requests that may wait; the next one is refused with 429
    """

    def __init__(self, most_waiting: int) -> None:
        self._most = most_waiting
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._taken = 0
        self._places = 1

    @property
    def waiting(self) -> int:
        return sum(len(line) for line in self._waiting.values())

    @property
    def places(self) -> int:
        """Turns that there are at a time."""
        return self._places

    def set_places(self, places: int) -> None:
        """Say how many turns there are at a time; turns that are taken stay taken."""
        self._places = places
        self._hand_out()

    async def take(self, client: str, *, retry_after: int) -> None:
        """Wait for the turn of a client; `give_back` must follow. Refusal 429 when too many wait.

        A caller that is cancelled while it waits leaves the line.
        """
        if self._taken < self._places:
            self._taken += 1
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
        """Give a turn back; it goes to the next client in the round."""
        self._taken -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._taken < self._places and (future := self._next()) is not None:
            self._taken += 1
            future.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        """Take who is next in the round out of the line."""
        for client in list(self._waiting):
            line = self._waiting[client]
            while line:
                future = line.popleft()
                if not future.done():
                    self._waiting.move_to_end(client)
                    return future
        return None

    def _forget(self, client: str, future: asyncio.Future[None]) -> None:
        line = self._waiting.get(client)
        if line is None:
            return
        if future in line:
            line.remove(future)
        if not line:
            del self._waiting[client]
