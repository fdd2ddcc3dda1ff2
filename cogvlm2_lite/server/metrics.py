"""Counters of the server, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from cogvlm2_lite.events import Event, Finished, ImageEncoded, Progress

_HELP = {
    "requests_total": "Requests by endpoint and status.",
    "answers_total": "Answers by finish reason.",
    "prompt_tokens_total": "Prompt tokens, including those of pictures.",
    "completion_tokens_total": "Tokens that the model produced.",
    "draft_tokens_total": "Tokens that speculation proposed.",
    "accepted_tokens_total": "Tokens that speculation proposed and the model chose, too.",
    "encode_seconds_total": "Seconds spent encoding pictures.",
    "prefill_seconds_total": "Seconds spent in prefill.",
    "decode_seconds_total": "Seconds spent decoding.",
    "pictures_total": "Pictures by whether they were in the cache.",
    "engine_deaths_total": "Deaths of the engine's process.",
}
_GAUGES = {
    "requests_waiting": "Requests in the queue.",
    "requests_running": "Requests being answered.",
    "engine_ready": "1 if the model is loaded.",
    "memory_held_bytes": "Bytes that the engine used at its last progress report.",
    "memory_planned_bytes": "Peak bytes of the memory plan.",
}


class Metrics:
    """The counters; `render` returns them as text."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], float] = {}
        self.answers = 0
        self.held_bytes = 0
        self._seconds_per_answer = 0.0

    @property
    def seconds_per_answer(self) -> float:
        """Moving average of the time per answer; 0 before the first one."""
        return self._seconds_per_answer

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count something. Labels must come from a small fixed set, never from a client."""
        text = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        self._counts[name, text] = self._counts.get((name, text), 0) + amount

    def watch(self, event: Event) -> None:
        """Update the counters for an event of an answer."""
        match event:
            case Progress():
                self.held_bytes = event.held_bytes
            case ImageEncoded():
                self.add("pictures_total", known=str(event.reused).lower())
            case Finished():
                self.answers += 1
                self.add("answers_total", reason=event.reason.value)
                self.add("prompt_tokens_total", event.prompt_tokens)
                self.add("completion_tokens_total", event.completion_tokens)
                self.add("draft_tokens_total", event.draft_tokens)
                self.add("accepted_tokens_total", event.accepted_tokens)
                self.add("encode_seconds_total", event.encode_s)
                self.add("prefill_seconds_total", event.prefill_s)
                self.add("decode_seconds_total", event.decode_s)
                took = event.encode_s + event.prefill_s + event.decode_s
                old = self._seconds_per_answer or took
                self._seconds_per_answer = 0.7 * old + 0.3 * took

    def render(self, gauges: Mapping[str, float]) -> str:
        """Return the page. gauges: a value for each gauge, by name."""
        lines = []
        for name, text in _HELP.items():
            lines += [f"# HELP cogvlm2_{name} {text}", f"# TYPE cogvlm2_{name} counter"]
            rows = sorted((k[1], v) for k, v in self._counts.items() if k[0] == name)
            lines += [f"cogvlm2_{name}{{{labels}}} {v:g}" if labels else f"cogvlm2_{name} {v:g}"
                      for labels, v in rows or [("", 0)]]  # fmt: skip
        for name, text in _GAUGES.items():
            lines += [f"# HELP cogvlm2_{name} {text}", f"# TYPE cogvlm2_{name} gauge"]
            lines.append(f"cogvlm2_{name} {gauges[name]:g}")
        return "\n".join(lines) + "\n"
