"""Drafts of what a JSON schema requires, with blanks as the answer writes them elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

RequiredAfter = Callable[[str], bytes | None]
"""Returns the bytes that must follow the answer and a text; None: the text is not allowed."""

FORCED, LIKELY = "f", "l"
"""A character that must follow, and one that the answer might put otherwise."""

_MOST = 160
"""Characters of a draft."""


@dataclass(frozen=True, kw_only=True)
class _State:
    """Where a JSON text is.

    open      brackets that are open
    last      the last character that is no blank, outside strings
    blanks    after it
    in_text   whether a string is open
    escaped   whether the next character of a string is escaped
    is_key    whether the last string is the name of a member
    """

    open: str = ""
    last: str = ""
    blanks: str = ""
    in_text: bool = False
    escaped: bool = False
    is_key: bool = False

    def after(self, letter: str) -> _State:
        """Return the state after a character."""
        if self.in_text:
            if self.escaped or letter == "\\":
                return replace(self, escaped=not self.escaped)
            return replace(self, in_text=letter != '"')
        if letter.isspace():
            return replace(self, blanks=self.blanks + letter)
        state = replace(self, last=letter, blanks="")
        if letter == '"':
            is_key = self.open.endswith("{") and self.last in "{,"
            return replace(state, in_text=True, is_key=is_key)
        if letter in "{[":
            return replace(state, open=self.open + letter)
        return replace(state, open=self.open[:-1]) if letter in "}]" else state

    @property
    def style(self) -> tuple[str, int]:
        """Return what blanks depend on: commas of one depth are followed by the same ones."""
        return self.last, len(self.open)


class JsonText:
    """Follows an answer in JSON and tells what comes next if its form leaves no choice.

    required  None: the answer is no JSON
    """

    def __init__(self, required: RequiredAfter | None) -> None:
        self._required = required
        self._state = _State()
        self._blanks: dict[tuple[str, int] | str, str] = {}
        self._fraction = ""
        """The fraction of a number that may go on."""

    def push(self, text: str) -> None:
        """Follow the next characters of the answer."""
        if self._required is None:
            return
        for letter in text:
            before, self._state = self._state, self._state.after(letter)
            goes_on = (letter.isdigit() and self._fraction) or letter == "."
            self._fraction = self._fraction + letter if goes_on and not before.in_text else ""
            if not before.in_text and not letter.isspace() and before.last in list(",:{["):
                self._blanks[before.style] = before.blanks
                if before.last == ":":
                    self._blanks[":"] = before.blanks

    def following(self, begin: str = "") -> tuple[str, str]:
        """Return what follows the answer and a text.

        Returns  characters, and for each of them FORCED or LIKELY
        """
        if self._required is None:
            return "", ""
        state = self._state
        for letter in begin:
            state = state.after(letter)
        found, kinds = "", ""
        while len(found) < _MOST:
            data = self._required(begin + found)
            if data is None:
                break
            more, kind = data.decode("utf-8", errors="ignore"), FORCED
            if not more:
                more, kind = self._likely(state, begin + found)
                if not more or self._required(begin + found + more) is None:
                    break
            for letter in more:
                state = state.after(letter)
            found += more
            kinds += kind * len(more)
        return found, kinds

    def closing(self) -> tuple[str, str, str]:
        """Return what follows if the value that is open ends here.

        Returns  characters, their kinds, and the kind of the value
        """
        state = self._state
        if self._required is None or state.last in list(",:{["):
            return "", "", ""
        text = '"' if state.in_text and not state.is_key else ""
        kinds = FORCED * len(text)
        for _ in range(2):  # a member's value, and the object that is complete with it
            sign = next((s for s in ",}]" if self._required(text + s) is not None), "")
            if not sign:
                break
            text += sign
            more, kind = self.following(text)
            text, kinds = text + more, kinds + LIKELY + kind
            if not text.endswith("}"):
                break
        if state.in_text:
            return text, kinds, "string"
        fraction = len(self._fraction)
        if not fraction and self._required(".") is None:
            return text, kinds, "value"
        return text, kinds, f"number {min(fraction, 4)}"

    def _likely(self, state: _State, before: str) -> tuple[str, str]:
        """Return what follows by custom: a colon, blanks as before, or the only possible sign."""
        assert self._required is not None
        if state.in_text:
            return "", ""
        if state.last == '"' and state.is_key and not state.blanks:
            return ":", FORCED
        custom = self._custom(state)
        if custom is None:
            return "", ""
        if custom != state.blanks and custom.startswith(state.blanks):
            return custom[len(state.blanks) :], LIKELY
        signs = [sign for sign in '"{[' if self._required(before + sign) is not None]
        return (signs[0] if len(signs) == 1 and custom == state.blanks else ""), FORCED

    def _custom(self, state: _State) -> str | None:
        """Return the blanks that the answer writes at a place; None: there are none."""
        if state.last not in list(",:{["):
            return None
        found = self._blanks.get(state.style)
        if found is None and state.last == ",":
            # As after the bracket, or as after colons.
            found = self._blanks.get((state.open[-1:], len(state.open))) or self._blanks.get(":")
        if found is None and state.last == ":":
            found = self._blanks.get(":")
        return found if found is not None else "" if state.last in "{[" else " "
