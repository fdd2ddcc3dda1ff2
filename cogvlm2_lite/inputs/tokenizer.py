"""Converts text to ids and back, with the checkpoint's own tokenizer.json.

Only the small `tokenizers` library is loaded. CogVLM2 uses the byte-level BPE of Llama 3: an id
represents some bytes, and a Chinese character or an emoji often takes several ids.
"""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Any

import tokenizers

from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.folders.contents import unreadable_json
from cogvlm2_lite.folders.explain import explain_no_file

# The clean-up of the released decode (`clean_up_tokenization_spaces` in transformers 4), in order.
_CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
# The end of a text that a clean-up could still change when more text follows: a space, and what
# may be the beginning of a pattern after it. It may contain spaces, because one clean-up may remove
# them so that a later one matches.
_OPEN_END = re.compile(r" [ n']*[vr]?$")


class Tokenizer:
    """The tokenizer of one model folder."""

    def __init__(self, fast: tokenizers.Tokenizer, *, clean_up: bool) -> None:
        """Use a loaded tokenizer; most callers want `from_folder`.

        clean_up  remove spaces before punctuation when decoding, as the released decode does
        """
        # A prompt must never be padded or cut, even if tokenizer.json says so.
        fast.no_padding()
        fast.no_truncation()
        self._fast = fast
        special = {i: t for i, t in fast.get_added_tokens_decoder().items() if t.special}
        self._special = frozenset(special)
        self.special_texts = tuple(token.content for token in special.values())
        """Texts that are encoded as one special id, such as the end of an answer."""
        self.clean_up = clean_up

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json`, and the clean-up setting from `tokenizer_config.json`.

        Raises CheckpointError if a file is missing, damaged or not a byte-level BPE tokenizer.
        """
        path = folder / "tokenizer.json"
        raw = _read(path)
        try:
            # from_file takes only paths in UTF-8.
            fast = tokenizers.Tokenizer.from_buffer(raw)
        except Exception as error:  # the library raises nothing narrower
            # Python's parser takes 0.15 s for the real file, so it is only asked what is wrong.
            if not _is_byte_level(_parse(path, raw).get("decoder")):
                raise _other_kind(path) from error
            raise CheckpointError(
                "{file} can't be used: {why}.",
                hint="Copy {name} again from the source.",
                file=path,
                why=error,
                name=path.name,
            ) from error
        if fast.decoder is None or not _is_byte_level(json.loads(fast.decoder.__getstate__())):
            raise _other_kind(path)
        config_path = folder / "tokenizer_config.json"
        settings = _parse(config_path, _read(config_path)) if config_path.exists() else {}
        return cls(fast, clean_up=settings.get("clean_up_tokenization_spaces", False) is True)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return int(self._fast.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; no special token is added.

        Special tokens written in the text become their ids, as in the released model. Lone
        surrogates, with which Python represents invalid UTF-8 on a command line, become "?".
        """
        text = text.encode("utf-8", errors="replace").decode("utf-8")
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids as the released decode does: cleaned up, without special tokens.

        Bytes that are not UTF-8 become U+FFFD; unknown ids are ignored.
        """
        text = str(self._fast.decode(ids, skip_special_tokens=True))
        return _clean(text) if self.clean_up else text

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of an id; empty for special tokens and for unknown ids."""
        token = None if token_id in self._special else self._fast.id_to_token(token_id)
        if token is None:
            return b""
        letters = [_BYTE_OF_LETTER.get(letter) for letter in token]
        known = [byte for byte in letters if byte is not None]
        # An added token is stored as text, not in the byte alphabet.
        return bytes(known) if len(known) == len(token) else token.encode()

    def find_token(self, text: str) -> int | None:
        """Return the id of a token that is exactly this text in ASCII, or None."""
        token = self._fast.token_to_id(text.replace(" ", _LETTER_OF_SPACE))
        return None if token is None or token in self._special else int(token)

    def token_name(self, token_id: int) -> str:
        """Return an id's entry in the vocabulary, such as "<|end_of_text|>"; "" if unknown."""
        return self._fast.id_to_token(token_id) or ""


class StreamDecoder:
    """Converts ids to text one by one, and returns only text that can't change any more.

    The results of all `push` calls and of `finish`, joined, are exactly `Tokenizer.decode` of all
    ids. An incomplete character is held back until its other bytes come, and a space until it is
    certain that no clean-up removes it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, token_id: int) -> str:
        """Add the next id; return the text that is now certain, which may be empty."""
        return self._settle(self._utf8.decode(self._tokenizer.token_bytes(token_id)))

    def finish(self) -> str:
        """Return the text that was still held back; call it once, after the last id."""
        text = self._settle(self._utf8.decode(b"", final=True)) + _clean(self._held)
        self._held = ""
        return text

    def _settle(self, new: str) -> str:
        """Add text; return the cleaned part that later text can't change, and hold the rest."""
        if not self._tokenizer.clean_up:
            return new
        text = self._held + new
        match = _OPEN_END.search(text)
        end = match.start() if match else len(text)
        self._held = text[end:]
        return _clean(text[:end])


def _clean(text: str) -> str:
    for spaced, tight in _CLEAN_UP:
        text = text.replace(spaced, tight)
    return text


def _byte_of_letter() -> dict[str, int]:
    """Return the byte of each character in the alphabet of byte-level BPE.

    Printable Latin-1 bytes represent themselves; the other 68 are the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF_LETTER = _byte_of_letter()
_LETTER_OF_SPACE = next(letter for letter, byte in _BYTE_OF_LETTER.items() if byte == 0x20)


def _is_byte_level(decoder: Any) -> bool:
    """Return whether a decoder is ByteLevel, alone or as the only member of a sequence."""
    if isinstance(decoder, dict) and decoder.get("type") == "Sequence":
        members = decoder.get("decoders")
        return isinstance(members, list) and len(members) == 1 and _is_byte_level(members[0])
    return isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"


def _other_kind(path: Path) -> CheckpointError:
    return CheckpointError(
        "{file} is not a byte-level BPE tokenizer, which CogVLM2 needs.",
        hint="Copy tokenizer.json from the original checkpoint into the folder.",
        file=path,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise explain_no_file(path.parent, path.name) or CheckpointError(
            "{folder} has no {file}, so text can't be turned into tokens.",
            hint="Copy {file} from the original checkpoint into the folder.",
            folder=path.parent,
            file=path.name,
        ) from None
    except OSError as error:
        raise CheckpointError("{file} can't be read: {why}.", file=path, why=error) from error


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise unreadable_json(path, raw, error) from error
    if not isinstance(content, dict):
        raise CheckpointError("{file} does not contain a JSON object.", file=path)
    return content
