"""The settings of one answer, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from cogvlm2_lite.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of one answer. The defaults are greedy, as in the released demos.

    temperature         0: always the most likely token; otherwise logits are divided by it
    top_p               keep the most likely tokens that together reach this probability; 1: all
    top_k               keep this many of the most likely tokens; 0: all
    repetition_penalty  divides the logits of tokens that occurred, as transformers does; 1: off
    frequency_penalty   subtracted from a token's logit for each time it occurs in the answer
    presence_penalty    subtracted once if the token occurs in the answer at all
    seed                of the random number generator; None: a new one each time
    max_new_tokens      maximum length of the answer; it ends earlier if the context is full
    stop                texts that end the answer and are not shown
    repetition_guard    end an answer that keeps repeating itself
    logprobs            report the log probability of each token, and of this many of the most
                        likely tokens at its position, before temperature and penalties; None: no
                        log probabilities
    json_object         write a JSON object and nothing else (engine/json_text.py). If
                        max_new_tokens is too low, the object is incomplete
    json_schema         a JSON schema as JSON text: write a value that it accepts and nothing else
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
    json_schema: str = ""

    @property
    def as_json(self) -> bool:
        """Whether the answer must be JSON."""
        return self.json_object or bool(self.json_schema)

    def __post_init__(self) -> None:
        _check_least("max_new_tokens", self.max_new_tokens, 1)
        _check_between("temperature", self.temperature, 0, 100)
        _check_above_zero("top_p", self.top_p, 1)
        _check_least("top_k", self.top_k, 0)
        _check_above_zero("repetition_penalty", self.repetition_penalty, 10)
        _check_between("frequency_penalty", self.frequency_penalty, -2, 2)
        _check_between("presence_penalty", self.presence_penalty, -2, 2)
        _check_between("seed", self.seed or 0, 0, 2**63 - 1)
        _check_between("logprobs", self.logprobs or 0, 0, 20)
        if not all(self.stop):
            raise UsageError("A stop text must not be empty.", param="stop")


def _check_least(param: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(
            "{param} must be {least} or more, not {value}.", param=param, least=least, value=value
        )


def _check_between(param: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise UsageError(
            "{param} must be between {least} and {most}, not {value}.",
            param=param,
            least=least,
            most=most,
            value=value,
        )


def _check_above_zero(param: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise UsageError(
            "{param} must be above 0 and at most {most}, not {value}.",
            param=param,
            most=most,
            value=value,
        )
