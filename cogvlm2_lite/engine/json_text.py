"""Keeps an answer a JSON object while it is written: which bytes may come next.

A pushdown automaton over bytes, for a token may hold several: `"}],` closes a string and two
containers, and half a Chinese letter is no letter yet. It accepts what RFC 8259 does, less what
readers choke on or what a model may go on with for ever:

- the outermost value is an object, nested at most 32 deep;
- a number has at most 32 signs and its exponent two digits, so that it stays finite and short;
- between values stands one space, or a line end and at most 40 spaces or tabs;
- \\u escapes name no surrogates; letters beyond U+FFFF are written out.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import NamedTuple

from cogvlm2_lite.inputs.tokenizer import Tokenizer

_DEEPEST = 32
_LONGEST_NUMBER = 32
_DEEPEST_INDENT = 40
_DIGITS = b"0123456789"
_HEX = b"0123456789abcdefABCDEF"
_WORDS = {ord("t"): b"rue", ord("f"): b"alse", ord("n"): b"ull"}
# What may follow a lead byte of UTF-8: bytes left, and the range of the next one (RFC 3629).
_LEADS = {
    **dict.fromkeys(range(0xC2, 0xE0), (1, 0x80, 0xBF)),
    **dict.fromkeys(range(0xE1, 0xF0), (2, 0x80, 0xBF)),
    **dict.fromkeys(range(0xF1, 0xF4), (3, 0x80, 0xBF)),
    0xE0: (2, 0xA0, 0xBF),
    0xED: (2, 0x80, 0x9F),
    0xF0: (3, 0x90, 0xBF),
    0xF4: (3, 0x80, 0x8F),
}


class _State(NamedTuple):
    """Where in the text we are.

    place  a function's name in `_PLACES`
    stack  "{" and "[" of the open containers, the outermost first
    key    a string is a key
    length signs of a number, digits of an exponent or of an escape; of the space between values
           1 for a single one, 2 for a line end and 1 more for each sign of the indent
    rest   what a literal or a letter still needs
    """

    place: str
    stack: str = ""
    key: bool = False
    length: int = 0
    rest: bytes | tuple[int, int, int] = b""


class JsonAnswer:
    """The tokens of one answer that must be a JSON object.

    end_tokens  those that end an answer; they are never allowed, for the object ends it
    """

    def __init__(self, tokenizer: Tokenizer, end_tokens: Set[int]) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._state = _State("start")

    def allows(self, token: int) -> bool:
        """Say whether the answer may go on with this token."""
        if token in self._end_tokens:
            return False
        data = self._tokenizer.token_bytes(token)
        return bool(data) and _advance(self._state, data) is not None

    def push(self, token: int) -> bool:
        """Add an allowed token; True when the object is complete."""
        state = _advance(self._state, self._tokenizer.token_bytes(token))
        assert state is not None, "the token is not allowed"
        self._state = state
        return state.place == "done"


def _advance(state: _State | None, data: bytes) -> _State | None:
    """Read bytes; None when no JSON object begins like this."""
    for byte in data:
        if state is None:
            return None
        state = _PLACES[state.place](state, byte)
    return state


def _start(state: _State, byte: int) -> _State | None:
    return _State("first_key", "{") if byte == ord("{") else _space(state, byte)


def _done(state: _State, byte: int) -> _State | None:
    return _space(state, byte)


def _space(state: _State, byte: int) -> _State | None:
    if byte == ord("\n") and state.length < 2:
        return state._replace(length=2)
    indent = byte in b" \t" and 2 <= state.length < 2 + _DEEPEST_INDENT
    if indent or (byte == ord(" ") and state.length == 0):
        return state._replace(length=state.length + 1)
    return None


def _first_key(state: _State, byte: int) -> _State | None:
    return _close(state, byte) if byte == ord("}") else _key(state, byte)


def _key(state: _State, byte: int) -> _State | None:
    if byte == ord('"'):
        return _State("string", state.stack, key=True)
    return _space(state, byte)


def _colon(state: _State, byte: int) -> _State | None:
    return _State("value", state.stack) if byte == ord(":") else _space(state, byte)


def _first_value(state: _State, byte: int) -> _State | None:
    return _close(state, byte) if byte == ord("]") else _value(state, byte)


def _value(state: _State, byte: int) -> _State | None:
    stack = state.stack
    if byte == ord('"'):
        return _State("string", stack)
    if byte in b"{[":
        place = "first_key" if byte == ord("{") else "first_value"
        return _State(place, stack + chr(byte)) if len(stack) < _DEEPEST else None
    if byte in _WORDS:
        return _State("word", stack, rest=_WORDS[byte])
    if byte == ord("-"):
        return _State("minus", stack, length=1)
    if byte in _DIGITS:
        return _State("zero" if byte == ord("0") else "whole", stack, length=1)
    return _space(state, byte)


def _after(state: _State, byte: int) -> _State | None:
    """After a value: a comma, or the end of its container."""
    if byte == ord(","):
        return _State("key" if state.stack[-1] == "{" else "value", state.stack)
    return _close(state, byte) if byte in b"}]" else _space(state, byte)


def _close(state: _State, byte: int) -> _State | None:
    if state.stack[-1] != ("{" if byte == ord("}") else "["):
        return None
    stack = state.stack[:-1]
    return _State("after" if stack else "done", stack)


def _word(state: _State, byte: int) -> _State | None:
    assert isinstance(state.rest, bytes)
    if byte != state.rest[0]:
        return None
    rest = state.rest[1:]
    return _State("word", state.stack, rest=rest) if rest else _State("after", state.stack)


def _string(state: _State, byte: int) -> _State | None:
    if byte == ord('"'):
        return _State("colon" if state.key else "after", state.stack)
    if byte == ord("\\"):
        return state._replace(place="escape")
    if byte < 0x80:
        return state if byte >= 0x20 else None
    need = _LEADS.get(byte)
    return state._replace(place="letter", rest=need) if need else None


def _letter(state: _State, byte: int) -> _State | None:
    """Inside a letter of several bytes."""
    assert isinstance(state.rest, tuple)
    left, low, high = state.rest
    if not low <= byte <= high:
        return None
    if left == 1:
        return state._replace(place="string", rest=b"")
    return state._replace(rest=(left - 1, 0x80, 0xBF))


def _escape(state: _State, byte: int) -> _State | None:
    if byte == ord("u"):
        return state._replace(place="hex", length=0)
    return state._replace(place="string") if byte in b'"\\/bfnrt' else None


def _hex(state: _State, byte: int) -> _State | None:
    if byte not in _HEX:
        return None
    if state.length == 0 and byte in b"dD":
        return state._replace(place="hex_below_8", length=1)
    last = state.length == 3
    return state._replace(place="string" if last else "hex", length=0 if last else state.length + 1)


def _hex_below_8(state: _State, byte: int) -> _State | None:
    """After \\ud: 8 to f would name a surrogate."""
    return state._replace(place="hex", length=2) if byte in b"01234567" else None


def _minus(state: _State, byte: int) -> _State | None:
    if byte not in _DIGITS:
        return None
    return state._replace(place="zero" if byte == ord("0") else "whole", length=2)


def _zero(state: _State, byte: int) -> _State | None:
    return _number_goes_on(state, byte, digits=False, point=True)


def _whole(state: _State, byte: int) -> _State | None:
    return _number_goes_on(state, byte, digits=True, point=True)


def _fraction(state: _State, byte: int) -> _State | None:
    return _number_goes_on(state, byte, digits=True, point=False)


def _number_goes_on(state: _State, byte: int, *, digits: bool, point: bool) -> _State | None:
    """After a digit that may be a number's last one.

    What needs another digit after it (a point, an e, their sign) must leave room for that one.
    """
    if digits and byte in _DIGITS:
        more = state._replace(length=state.length + 1)
        return more if more.length <= _LONGEST_NUMBER else None
    if point and byte == ord("."):
        more = state._replace(place="point", length=state.length + 1)
        return more if more.length < _LONGEST_NUMBER else None
    if byte in b"eE":
        return state._replace(place="exponent", length=0)
    return _after(_State("after", state.stack), byte)


def _point(state: _State, byte: int) -> _State | None:
    if byte not in _DIGITS:
        return None
    return state._replace(place="fraction", length=state.length + 1)


def _exponent(state: _State, byte: int) -> _State | None:
    if byte in b"+-":
        return state._replace(place="exponent_sign")
    return _exponent_sign(state, byte)


def _exponent_sign(state: _State, byte: int) -> _State | None:
    return state._replace(place="power", length=1) if byte in _DIGITS else None


def _power(state: _State, byte: int) -> _State | None:
    if byte in _DIGITS:
        return state._replace(length=2) if state.length == 1 else None
    return _after(_State("after", state.stack), byte)


_PLACES: dict[str, Callable[[_State, int], _State | None]] = {
    "start": _start, "first_key": _first_key, "key": _key, "colon": _colon, "value": _value,
    "first_value": _first_value, "after": _after, "done": _done, "string": _string,
    "letter": _letter, "escape": _escape, "hex": _hex, "hex_below_8": _hex_below_8, "word": _word,
    "minus": _minus, "zero": _zero, "whole": _whole, "point": _point, "fraction": _fraction,
    "exponent": _exponent, "exponent_sign": _exponent_sign, "power": _power,
}  # fmt: skip
