"""Converts logprobs to OpenAI's two forms, for chats and for completions."""

from __future__ import annotations

from collections.abc import Sequence

from cogvlm2_lite.events import (
    CandidateToken,
    PromptScored,
    TextDelta,
    TokenLogprobs,
    token_text,
)
from cogvlm2_lite.server.response_bodies import (
    ChatLogprobs,
    ChosenToken,
    CompletionLogprobs,
    TokenLogprob,
)


def chosen_tokens(tokens: Sequence[TokenLogprobs]) -> list[ChosenToken]:
    """Return the entries of `logprobs.content`."""
    return [
        ChosenToken(
            token=score.chosen.token,
            logprob=score.chosen.logprob,
            bytes=_bytes(score.chosen),
            top_logprobs=[
                TokenLogprob(token=other.token, logprob=other.logprob, bytes=_bytes(other))
                for other in score.top
            ],
        )
        for score in tokens
    ]


def stripped(delta: TextDelta) -> tuple[str, tuple[TokenLogprobs, ...]]:
    """Return the beginning of an answer without its first blanks, and the tokens it consists of.

    The tokens lose the same bytes, so that they join to the text. The other candidates lose their
    blanks, too: the answer would have been without them.
    """
    text = delta.text.lstrip()
    count = len(delta.text.encode(errors="replace")) - len(text.encode(errors="replace"))
    found = []
    for score in delta.tokens:
        if count:
            data = score.chosen.data or ()
            kept = data[min(count, len(data)) :]
            count -= len(data) - len(kept)
            top = tuple(_with_data(one, _without_blanks(one.data)) for one in score.top)
            score = TokenLogprobs(chosen=_with_data(score.chosen, kept), top=top)
        found.append(score)
    return text, tuple(found)


def _without_blanks(data: tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(bytes(data or ()).lstrip())


def _with_data(one: CandidateToken, data: tuple[int, ...]) -> CandidateToken:
    """Return a candidate with other bytes; one without bytes, a special token, stays."""
    if one.data is None or data == one.data:
        return one
    return CandidateToken(token=token_text(bytes(data)), data=data, logprob=one.logprob)


def completion_logprobs(
    tokens: Sequence[TokenLogprobs], text: str = "", begin: int = 0
) -> CompletionLogprobs:
    """Return the lists of /v1/completions.

    text   the piece of the answer that the tokens produced
    begin  characters of the answer before it; `text_offset` counts from the answer's first one
    """
    offsets, before = [], b""
    for score in tokens:
        characters = len(before.decode("utf-8", errors="ignore"))
        offsets.append(begin + min(characters, max(len(text) - 1, 0)))
        before += bytes(score.chosen.data or ())
    return CompletionLogprobs(
        tokens=[_key(score.chosen) for score in tokens],
        token_logprobs=[score.chosen.logprob for score in tokens],
        top_logprobs=[_by_key(score.top) for score in tokens],
        text_offset=offsets,
    )


def prompt_logprobs(scored: PromptScored) -> CompletionLogprobs:
    """Return the lists of /v1/completions for the tokens of an echoed prompt."""
    found = completion_logprobs(scored.tokens, scored.text)
    if scored.begins:  # the client sent this token, and expects an entry for it
        found.tokens.insert(0, scored.begins)
        found.token_logprobs.insert(0, None)
        found.top_logprobs.insert(0, None)
        found.text_offset.insert(0, 0)
    return found


def extend(
    kept: ChatLogprobs | CompletionLogprobs, more: ChatLogprobs | CompletionLogprobs
) -> None:
    """Append the logprobs of the next piece of an answer."""
    for name in kept.__struct_fields__:
        values = getattr(kept, name)
        if isinstance(values, list):
            values.extend(getattr(more, name))


def _by_key(top: Sequence[CandidateToken]) -> dict[str, float]:
    """Return logprobs by text. Of two tokens with one text, the more likely one counts."""
    found: dict[str, float] = {}
    for one in top:
        found.setdefault(_key(one), one.logprob)
    return found


def _bytes(one: CandidateToken) -> list[int] | None:
    return None if one.data is None else list(one.data)


def _key(one: CandidateToken) -> str:
    """Return the key of a token; OpenAI marks incomplete characters with "bytes:"."""
    whole = one.data is None or bytes(one.data) == one.token.encode(errors="replace")
    return one.token if whole else f"bytes:{one.token}"
