"""The command `serve` in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from typing import Any

import httpx
import openai

from cogvlm2_lite.demo.shipped import sample_pictures

PICTURES = {p.path.stem: p.path for p in sample_pictures()}


PATIENCE_S = 120.0


class Served:
    """A running `serve demo`."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cogvlm2_lite", "serve", "demo", "--port", "0", *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found is not None
        self.address = found[0]
        self.wait_ready()

    def wait_ready(self) -> None:
        pause = threading.Event()
        for _ in range(1200):
            if httpx.get(f"{self.address}/health").status_code == 200:
                return
            pause.wait(0.1)
        raise AssertionError("the model was never loaded")

    def stop(self) -> None:
        """Stop as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE_S) == 130
        assert self.process.stdout is not None
        self.process.stdout.close()

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.address}/v1", api_key="none", timeout=PATIENCE_S, **options
        )
