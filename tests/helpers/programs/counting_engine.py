"""An engine's process without a model: it answers every question with numbered words, slowly.

python -m tests.helpers.programs.counting_engine speaks the protocol of cogvlm2_lite.worker.main.
"""

from __future__ import annotations

import sys
import threading
import time

from cogvlm2_lite.events import Finished, FinishReason, TextDelta
from cogvlm2_lite.worker.protocol import (
    Ask,
    CancelRequest,
    Emitted,
    Load,
    Loaded,
    Shutdown,
    read_message,
)
from cogvlm2_lite.worker.protocol import write_message as write

COMMAND = (sys.executable, "-m", "tests.helpers.programs.counting_engine")
WORDS = 150
PAUSE_S = 0.01
LOADED = Loaded(plan={}, compute="none", context=8192, image_tokens=18)


def answer_of(words: int = WORDS) -> str:
    return "".join(f"{number} " for number in range(words))


def main() -> None:
    stopped = threading.Event()
    while (message := read_message(sys.stdin.buffer)) is not None:
        match message:
            case Load():
                time.sleep(0.05)  # so that a kill may come while the model loads
                write(sys.stdout.buffer, LOADED)
            case Ask():
                stopped.clear()
                threading.Thread(target=talk, args=(message.request, stopped), daemon=True).start()
            case CancelRequest():
                stopped.set()
            case Shutdown():
                return


def talk(request: int, stopped: threading.Event) -> None:
    told = 0
    while told < WORDS and not stopped.wait(PAUSE_S):
        write(sys.stdout.buffer, Emitted(request=request, event=TextDelta(text=f"{told} ")))
        told += 1
    end = Finished(
        text=answer_of(told), reason=FinishReason.CANCELLED if told < WORDS else FinishReason.EOS,
        prompt_tokens=30, image_tokens=18, completion_tokens=told,
        encode_s=0.0, prefill_s=0.0, decode_s=told * PAUSE_S,
    )  # fmt: skip
    write(sys.stdout.buffer, Emitted(request=request, event=end))


if __name__ == "__main__":
    main()
