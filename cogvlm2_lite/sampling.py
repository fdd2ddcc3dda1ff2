"""Settings of one answer: plain values, so that front ends can make them without torch."""

from __future__ import annotations

from dataclasses import dataclass

from cogvlm2_lite.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of one answer. The defaults are greedy, as in the released demos.

    temperature         0: always the likeliest token; else scores are divided by it
    top_p               keep the likeliest tokens that together reach this probability; 1: all
    top_k               keep this many of the likeliest tokens; 0: all
    repetition_penalty  divides the scores of tokens that occurred, as transformers does; 1: off
    frequency_penalty   taken off a token's score for each time the answer has it
    presence_penalty    taken off once when the answer has the token at all
    seed                of the random choice; None: a new one each time
    max_new_tokens      the answer's ceiling; the context's end comes before it
    stop                texts that end the answer and are not shown
    repetition_guard    end an answer that runs in circles
    logprobs            tell how likely each token was, and this many of the likeliest at its place,
                        as the model scored them, before temperature and penalties; None: tell none
    json_object         write a JSON object and nothing else (engine/json_text.py); with a ceiling
                        that is too low it stays without its end
    """

    max_new_tokens: int = 2048
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_guard: bool = True
    logprobs: int | None = None
    json_object: bool = False

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens must be 1 or more": self.max_new_tokens >= 1,
            "temperature must be between 0 and 100": 0 <= self.temperature <= 100,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "top_k must be 0 (off) or more": self.top_k >= 0,
            "repetition_penalty must be above 0 and at most 10": 0 < self.repetition_penalty <= 10,
            "frequency_penalty must be between -2 and 2": -2 <= self.frequency_penalty <= 2,
            "presence_penalty must be between -2 and 2": -2 <= self.presence_penalty <= 2,
            "seed must be between 0 and 2^63 - 1": self.seed is None or 0 <= self.seed < 2**63,
            "logprobs must be between 0 and 20": self.logprobs is None or 0 <= self.logprobs <= 20,
            "a stop text must not be empty": all(self.stop),
        }
        for rule, holds in rules.items():
            if not holds:
                name = rule.split()[0]
                given = f", not {getattr(self, name)}" if hasattr(self, name) else ""
                raise UsageError("{rule}{given}.", rule=rule, given=given)
