"""Restricts an answer to JSON: any object, or what a JSON schema accepts.

llguidance reads the grammar and computes a mask over the vocabulary for every token. It reads JSON
schemas, too. Without one, the grammar is RFC 8259 without what many parsers reject and without what
a model may continue for ever:

- the outermost value is an object, nested at most 32 deep; before it is at most one space;
- a number has at most 32 characters and its exponent two digits, so that it stays finite and short;
- between values is at most one space, or a line break and at most 40 spaces or tabs;
- \\u escapes contain no surrogates; characters beyond U+FFFF are written directly.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cogvlm2_lite.errors import EngineError, UsageError
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.text import Text

if TYPE_CHECKING:
    from llguidance import LLMatcher

MAX_SCHEMA_CHARACTERS = 100_000
_DEEPEST = 32
_KEPT_SCHEMAS = 16
_BLANKS = r"( |\n[ \t]{0,40})?"
# no_forcing: if only one text can follow, every token that starts it is allowed, not only the one
# that the tokenizer would choose. So the model's own probabilities decide.
_TERMINALS = r"""%llguidance {"no_forcing": true}
SPACE: / | ?\n[ \t]{0,40}/
STRING: /"([^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u([0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))*"/
DECIMAL: /-?(0|[1-9][0-9]*)(\.[0-9]+)?/ & /[-.0-9]{1,32}/
EXPONENT: /[eE][+-]?[0-9]{1,2}/
NUMBER: DECIMAL EXPONENT?
start: " "? object_1 SPACE?
"""  # noqa: E501 - a regular expression can't be wrapped


class JsonGrammar:
    """The grammars of JSON over the vocabulary of a tokenizer; built once for many answers.

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
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._of_objects = LLMatcher(
            vocabulary, LLMatcher.grammar_from_lark(_grammar()), log_level=0
        )
        assert not self._of_objects.is_error(), self._of_objects.get_error()
        self._of_schemas: OrderedDict[str, LLMatcher] = OrderedDict()

    def begin(self, schema: str = "") -> JsonAnswer:
        """Return the state of a new answer.

        schema  a JSON schema as JSON text; "": any object

        Raises UsageError for a schema that can't be used, with the reason.
        """
        matcher = self._of_schema(schema) if schema else self._of_objects
        # deep_copy is cheap: copies share the parsed grammar.
        return JsonAnswer(matcher.deep_copy(), self._tokenizer)

    def _of_schema(self, schema: str) -> LLMatcher:
        """Return the matcher of a schema; those of the latest ones are kept."""
        from llguidance import LLMatcher

        matcher = self._of_schemas.get(schema)
        if matcher is None:
            grammar = LLMatcher.grammar_from_lark(_schema_grammar(schema))
            matcher = LLMatcher(self._vocabulary, grammar, log_level=0)
            if matcher.is_error():
                reason, *_ = matcher.get_error().splitlines()
                raise _unusable(reason)
            self._of_schemas[schema] = matcher
            if len(self._of_schemas) > _KEPT_SCHEMAS:
                self._of_schemas.popitem(last=False)
        self._of_schemas.move_to_end(schema)
        return matcher


class JsonAnswer:
    """The tokens of one answer that must be JSON."""

    def __init__(self, matcher: LLMatcher, tokenizer: Tokenizer) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer

    def allowed(self, vocab: int) -> Tensor:
        """Return which tokens the answer may continue with, [vocab] bool.

        Raises EngineError when the object has become too complex to follow.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=vocab, bitorder="little")
        return torch.from_numpy(allowed).bool()

    def push(self, token: int) -> bool:
        """Add an allowed token; True when the value is complete.

        A number is complete only when an end token is chosen: more digits might follow.

        Raises UsageError for a token that is not allowed: an answer to continue may not be JSON.
        """
        if not self._matcher.try_consume_tokens([token]):
            raise UsageError("The answer so far is not the beginning of the JSON that it must be.")
        self._check()
        in_number = self._tokenizer.token_bytes(token)[-1:].isdigit()
        return self._matcher.is_accepting() and not in_number

    def required_after(self, text: str) -> bytes | None:
        """Return the bytes that must come after a text that follows; None: it is not allowed."""
        if not text:
            return bytes(self._matcher.compute_ff_bytes())
        tokens = self._tokenizer.encode(text)
        matcher = self._matcher.deep_copy()
        if int(matcher.try_consume_tokens(tokens)) < len(tokens):
            return None
        return bytes(matcher.compute_ff_bytes())

    def count_allowed(self, tokens: Sequence[int]) -> int:
        """Return how many tokens at the beginning of a draft the answer may continue with."""
        return int(self._matcher.validate_tokens(list(tokens)))

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


def _schema_grammar(schema: str) -> str:
    """Return the grammar of a schema. Raises UsageError for one that is no JSON object."""
    if len(schema) > MAX_SCHEMA_CHARACTERS:
        raise _unusable(Text("it has more than {most} characters", most=MAX_SCHEMA_CHARACTERS))
    try:
        value = json.loads(schema)
    except (ValueError, RecursionError):
        raise _unusable(Text("it is not JSON")) from None
    if not isinstance(value, dict):
        raise _unusable(Text("it must be an object"))
    spaced = {**value, "x-guidance": {"whitespace_pattern": _BLANKS}}
    return f'%llguidance {{"no_forcing": true}}\nstart: %json {json.dumps(spaced)}'


def _unusable(reason: str) -> UsageError:
    return UsageError(
        "The JSON schema can't be used: {why}.",
        hint="Simplify the schema, or use json_object and name the fields in the question.",
        param="json_schema",
        why=reason,
    )


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
