"""Restricts an answer to a JSON object: computes which tokens may come next.

llguidance reads the grammar and computes a mask over the vocabulary for every token. The grammar is
RFC 8259 without what many parsers reject and without what a model may continue for ever:

- the outermost value is an object, nested at most 32 deep;
- a number has at most 32 characters and its exponent two digits, so that it stays finite and short;
- between values is at most one space, or a line break and at most 40 spaces or tabs;
- \\u escapes contain no surrogates; characters beyond U+FFFF are written directly.

To support a JSON schema, pass another grammar to the same classes
(LLMatcher.grammar_from_json_schema).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cogvlm2_lite.errors import EngineError, UsageError
from cogvlm2_lite.inputs.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher

_DEEPEST = 32
# no_forcing: if only one text can follow, every token that starts it is allowed, not only the one
# that the tokenizer would choose. So the model's own probabilities decide.
_TERMINALS = r"""%llguidance {"no_forcing": true}
SPACE: / | ?\n[ \t]{0,40}/
STRING: /"([^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u([0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))*"/
DECIMAL: /-?(0|[1-9][0-9]*)(\.[0-9]+)?/ & /[-.0-9]{1,32}/
EXPONENT: /[eE][+-]?[0-9]{1,2}/
NUMBER: DECIMAL EXPONENT?
start: SPACE? object_1 SPACE?
"""  # noqa: E501 - a regular expression can't be wrapped


class JsonGrammar:
    """The grammar of JSON objects over the vocabulary of a tokenizer; built once for many answers.

    end_tokens  those that end an answer; they are allowed only after the object

    Raises UsageError if llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, end_tokens: Collection[int]) -> None:
        try:
            from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
        except ImportError:
            raise UsageError(
                "Answers in JSON need the package llguidance, which is not installed.",
                hint='Install it with: pip install "cogvlm2-lite[server]"',
                param="json_object",
            ) from None
        vocabulary = LLTokenizer(
            TokenizerWrapper(_Vocabulary(tokenizer, min(end_tokens))),
            eos_token=sorted(end_tokens),
            slices=LLTokenizer.json_slices(),
        )
        # deep_copy is cheap: copies share the parsed grammar.
        self._matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_lark(_grammar()), log_level=0)
        assert not self._matcher.is_error(), self._matcher.get_error()

    def begin(self) -> JsonAnswer:
        """Return the state of a new answer."""
        return JsonAnswer(self._matcher.deep_copy())


class JsonAnswer:
    """The tokens of one answer that must be a JSON object."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self, vocab: int) -> Tensor:
        """Return which tokens the answer may continue with, [vocab] bool.

        Raises EngineError when the object has become too complex to follow.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=vocab, bitorder="little")
        return torch.from_numpy(allowed).bool()

    def push(self, token: int) -> bool:
        """Add an allowed token; True when the object is complete.

        Raises UsageError for a token that is not allowed: an answer to continue may not be JSON.
        """
        if not self._matcher.try_consume_tokens([token]):
            raise UsageError("The answer so far is not the beginning of a JSON object.")
        self._check()
        return self._matcher.is_accepting()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError(
                "The answer can't be kept JSON any longer: {why}.",
                why=self._matcher.get_error(),
            )


class _Vocabulary:
    """A tokenizer with the interface that llguidance expects."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, end_token: int) -> None:
        self.eos_token_id = end_token
        data = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self.special_token_ids = [token for token, one in enumerate(data) if not one]
        # UTF-8 never contains the byte 0xff; llguidance uses it to mark special tokens.
        self.tokens = [one or b"\xff<%d>" % token for token, one in enumerate(data)]
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


def _grammar() -> str:
    """Return the grammar: rules for each depth; values at the deepest one have no containers."""
    rules = [_TERMINALS]
    for depth in range(1, _DEEPEST + 1):
        inner = f" | object_{depth + 1} | array_{depth + 1}" if depth < _DEEPEST else ""
        members = f'(pair_{depth} SPACE? ("," SPACE? pair_{depth} SPACE?)*)?'
        items = f'(value_{depth} SPACE? ("," SPACE? value_{depth} SPACE?)*)?'
        rules += [
            f'object_{depth}: "{{" SPACE? {members} "}}"',
            f'array_{depth}: "[" SPACE? {items} "]"',
            f'pair_{depth}: STRING SPACE? ":" SPACE? value_{depth}',
            f'value_{depth}: STRING | NUMBER | "true" | "false" | "null"{inner}',
        ]
    return "\n".join(rules)
