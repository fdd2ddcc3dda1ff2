"""A process that holds the memory of a GPU, so that little is left: an imitated smaller card.

    python -m benchmarks.gpu.ballast BYTES

It allocates until BYTES are free, and then reads lines: "take N" allocates all that is free but N
bytes, "give" releases that, and the end of the input ends it. After each it prints the bytes that
are free.
"""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Protocol, Self

PIECES = (1 << 30, 1 << 26, 12 << 20, 1 << 20)
"""torch asks the driver for 20 MiB where 1 to 10 MiB are wanted, and for 2 MiB below."""

_LEAST = 1 << 21

COMMAND = (sys.executable, "-m", "benchmarks.gpu.ballast")
_ANSWER_S = 60.0


class Holder:
    """Allocates tensors on the first GPU until little is left."""

    def __init__(self) -> None:
        self._held: list[Any] = []
        self._taken: list[Any] = []

    def leave(self, nbytes: int) -> int:
        """Allocate until about so many bytes are free; return how many are."""
        self._fill(self._held, nbytes)
        return self.free

    def take(self, leave: int) -> int:
        """Allocate everything that is free, but for some bytes."""
        self._fill(self._taken, leave)
        return self.free

    def give(self) -> int:
        """Release what `take` allocated."""
        import torch

        self._taken.clear()
        torch.cuda.empty_cache()
        return self.free

    @property
    def free(self) -> int:
        """Bytes that are free on the card."""
        import torch

        free: int = torch.cuda.mem_get_info(0)[0]
        return free

    def _fill(self, pieces: list[Any], leave: int) -> None:
        import torch

        for size in PIECES:
            while self.free >= leave + max(size, _LEAST):
                try:
                    pieces.append(torch.empty(size, dtype=torch.uint8, device="cuda:0"))
                except torch.OutOfMemoryError:
                    break


def main(arguments: Sequence[str], lines: IO[str] = sys.stdin, out: IO[str] = sys.stdout) -> int:
    """Hold memory until the input ends."""
    holder = Holder()
    print(holder.leave(int(arguments[0])), file=out, flush=True)
    for line in lines:
        word, _, leave = line.strip().partition(" ")
        free = holder.take(int(leave)) if word == "take" else holder.give()
        print(free, file=out, flush=True)
    return 0


class Ballast(Protocol):
    """Another program that holds memory of the card; a context manager."""

    free_bytes: int

    def take(self, leave: int) -> None:
        """Take all that is free, but for some bytes."""

    def give(self) -> None:
        """Release what `take` took."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class BallastProcess:
    """The process above.

    command     starts it; BYTES are added
    free_bytes  free on the card after its last answer
    """

    def __init__(self, leave: int, command: Sequence[str] = COMMAND) -> None:
        self._process = subprocess.Popen(
            [*command, str(leave)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.free_bytes = self._read()
        except RuntimeError:
            self.close()
            raise

    def __enter__(self) -> BallastProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.close()

    def close(self) -> None:
        """End the process, which releases the memory."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def take(self, leave: int) -> None:
        """Take all that is free, but for some bytes."""
        self._ask(f"take {leave}")

    def give(self) -> None:
        """Release what `take` took."""
        self._ask("give")

    def _ask(self, word: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        self.free_bytes = self._read()

    def _read(self) -> int:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], _ANSWER_S)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise RuntimeError(f"the process that holds memory ended or hangs ({line!r})")
        return int(line)


class EmulatedBallast:
    """The same on the emulated GPU.

    free_bytes  as of BallastProcess
    fails       whether an allocation fails after `take`: tiny weights leave no gap to take
    """

    def __init__(self, machine: Any, leave: int, *, fails: bool = False) -> None:
        self._machine, self._leave, self._fails = machine, leave, fails
        machine.foreign_bytes[0] = machine.total_bytes - leave
        self.free_bytes = leave - machine.held[0]

    def __enter__(self) -> EmulatedBallast:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release everything."""
        self._machine.foreign_bytes[0] = 0

    def take(self, leave: int) -> None:
        """Take all that is free, but for some bytes."""
        machine = self._machine
        machine.foreign_bytes[0] = max(
            machine.total_bytes - self._leave, machine.total_bytes - machine.held[0] - leave
        )
        if self._fails:
            machine.fail_at = machine.allocations + 20

    def give(self) -> None:
        """Release what `take` took."""
        self._machine.foreign_bytes[0] = self._machine.total_bytes - self._leave


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
