"""The processor: pictures and text to what the model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.hf.config import HUB_KEYS, numbers_of
from cogvlm2_lite.hf.pictures import open_any
from cogvlm2_lite.hf.tokenizer import add_padding
from cogvlm2_lite.inputs.image import OpenedImage, normalise_pixels, resize_pixels
from cogvlm2_lite.inputs.prompt import token_types

_TEXT_KEYS = ("padding", "padding_side", "pad_to_multiple_of", "max_length", "truncation")
_PICTURE_KEYS = ("image", "image_url", "url", "path", "base64")


class CogVLM2ImageProcessor(BaseImageProcessor):
    """Converts pictures to the input of the vision tower, as the released preprocessing does.

    size  {"height": side, "width": side} in pixels; the aspect ratio is not kept
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - the name is the base class's

    def __init__(self, size: Mapping[str, int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = dict(size or {"height": 1344, "width": 1344})

    def preprocess(self, images: Any, *_: Any, return_tensors: Any = None, **__: Any) -> Any:
        """Return `pixel_values`, [pictures, 3, side, side] float32, of one or several pictures."""
        opened = [open_any(image) for image in _flat(images)]
        return BatchFeature({"pixel_values": self.pixels(opened)}, tensor_type=return_tensors)

    def pixels(self, pictures: Sequence[OpenedImage]) -> NDArray[np.float32]:
        """Return opened pictures as [pictures, 3, side, side]."""
        side = self.size["height"]
        return np.concatenate([normalise_pixels(resize_pixels(each, side)) for each in pictures])


class CogVLM2Processor(ProcessorMixin):
    """Converts text and a picture to the tensors that the model reads.

    A prompt is bos, the picture's places, and the text. The picture comes first, wherever its
    marker (`image_token`) is in the text, and also without a marker. bos is added once.

    image_seq_length  places of a picture
    image_token_id    the id that marks them, and that pads shorter rows on the left
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 2306,
        bos_token_id: int | None = None,
        image_token_id: int | None = None,
        chat_template: str | None = None,
        **_: Any,
    ) -> None:
        self.image_seq_length = image_seq_length
        self.bos_token_id = tokenizer.bos_token_id if bos_token_id is None else bos_token_id
        self.image_token_id = tokenizer.pad_token_id if image_token_id is None else image_token_id
        self.image_token = tokenizer.convert_ids_to_tokens(self.image_token_id)
        add_padding(tokenizer, self.image_token_id)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Return the processor of a model folder, or of one that `save_pretrained` wrote."""
        kwargs.pop("use_fast", None)
        saved, _ = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "image_seq_length" in saved:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        hub = {key: kwargs[key] for key in HUB_KEYS if key in kwargs}
        numbers = numbers_of(AutoConfig.from_pretrained(pretrained_model_name_or_path, **hub))
        tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs)
        side = numbers.vision.image_size
        return cls(
            CogVLM2ImageProcessor({"height": side, "width": side}),
            tokenizer,
            image_seq_length=numbers.vision.image_tokens,
            bos_token_id=numbers.bos_token_id,
            image_token_id=numbers.pad_token_id,
            chat_template=tokenizer.chat_template,
        )

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        videos: Any = None,
        audio: Any = None,
        *,
        return_tensors: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Return input_ids, attention_mask and token_type_ids, a row for each text; pixel_values.

        images  one picture per text at most: a path, web address, base64 text, PIL image or array;
                for several texts a list of them, or of a list for each text
        text    a text or several, as the model shall read them; `apply_chat_template` makes one
                from messages

        padding, padding_side, pad_to_multiple_of, max_length and truncation work as in a tokenizer;
        truncation cuts the text. Raises ImageError and UsageError.
        """
        if videos is not None or audio is not None:
            raise UsageError("The model reads pictures and text, no videos and no audio.")
        settings = {**kwargs, **kwargs.get("text_kwargs", {}), **kwargs.get("common_kwargs", {})}
        return_tensors = return_tensors or settings.get("return_tensors")
        if text is None:
            pictures = [open_any(image) for image in _flat(images)]
            data = {"pixel_values": self.image_processor.pixels(pictures)}
            return BatchFeature(data, tensor_type=return_tensors)
        texts = [text] if isinstance(text, str) else list(text)
        opened = [_the_one(sources) for sources in self._assigned(images, texts)]
        chosen = {key: settings[key] for key in _TEXT_KEYS if settings.get(key) is not None}
        cut = chosen.pop("truncation", False) not in (False, "do_not_truncate")
        most = chosen.get("max_length") if cut else None
        rows = [self._row(one, picture, most) for one, picture in zip(texts, opened, strict=True)]
        padded = self.tokenizer.pad(
            {
                "input_ids": [ids for ids, _ in rows],
                "token_type_ids": [types for _, types in rows],
                "attention_mask": [[1] * len(ids) for ids, _ in rows],
            },
            **{"padding": False, **chosen},
        )
        data = dict(padded.items())
        seen = [picture for picture in opened if picture is not None]
        if seen:
            data["pixel_values"] = self.image_processor.pixels(seen)
        return BatchFeature(data, tensor_type=return_tensors)

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """Return messages as a prompt, or with `tokenize=True` as what the model reads.

        Contents are texts or lists of parts. A picture is a part with `image`, `url`, `path`,
        `base64` or `image_url`; its value is what `__call__` takes. An assistant's message at the
        end is continued with `continue_final_message=True`.
        """
        batched = bool(conversation) and not isinstance(conversation[0], Mapping)
        batch = conversation if batched else [conversation]
        plain = [[_plain_message(message) for message in messages] for messages in batch]
        return super().apply_chat_template(plain if batched else plain[0], *args, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "token_type_ids", "pixel_values"]

    def _row(
        self, text: str, picture: OpenedImage | None, most: int | None
    ) -> tuple[list[int], list[int]]:
        """Return the ids and token types of a text and its picture, at most `most` tokens."""
        marked = self.image_token in text
        if marked and picture is None:
            raise UsageError("The text has a place for a picture, but no picture was passed.")
        text = text.replace(self.image_token, "") if marked else text
        bos = self.tokenizer.convert_ids_to_tokens(self.bos_token_id)
        text = text.removeprefix(bos)
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        places = 0 if picture is None else self.image_seq_length
        if most is not None:
            room = most - 1 - places
            if room < 0:
                raise UsageError(
                    "max_length is {most}, but bos and the picture have {count} tokens.",
                    most=most,
                    count=1 + places,
                )
            left = getattr(self.tokenizer, "truncation_side", "right") == "left"
            ids = ids[max(len(ids) - room, 0) :] if left else ids[:room]
        types = token_types(image_tokens=places, text_tokens=len(ids))[0]
        return [self.bos_token_id] + [self.image_token_id] * places + ids, types.tolist()

    def _assigned(self, images: Any, texts: Sequence[str]) -> list[list[Any]]:
        """Return the pictures of each text."""
        if images is None or (isinstance(images, list | tuple) and not images):
            return [[] for _ in texts]
        given = list(images) if isinstance(images, list | tuple) else [images]
        if any(isinstance(each, list | tuple) for each in given) or len(given) == len(texts) > 1:
            groups = [_flat(each) for each in given]
        elif len(texts) == 1:
            groups = [_flat(given)]
        else:
            # Each text with a marker takes the next picture.
            left = iter(given)
            groups = [[next(left, None)] if self.image_token in text else [] for text in texts]
            groups[-1].extend(left)
        missing = any(picture is None for group in groups for picture in group)
        if missing or len(groups) != len(texts):
            raise UsageError(
                "Pictures can't be assigned to texts (pictures: {count}, texts: {texts}).",
                hint="Pass a list with one picture, or a list of pictures, for each text.",
                count=len(given),
                texts=len(texts),
            )
        return groups


def _flat(images: Any) -> list[Any]:
    """Return one picture, a list of them, or lists in a list as one list."""
    if images is None:
        return []
    if getattr(images, "ndim", 0) == 4:  # a batch of arrays
        return list(images)
    if not isinstance(images, list | tuple):
        return [images]
    return [each for item in images for each in _flat(item)]


def _the_one(sources: Sequence[Any]) -> OpenedImage | None:
    """Return the picture of a text. The same one several times counts once."""
    opened = {picture.sha256: picture for picture in map(open_any, sources)}
    if len(opened) > 1:
        raise UsageError(
            "Too many pictures for one conversation: {count}; the model takes {most}.",
            hint="Ask about each picture in a separate conversation, or combine them into one.",
            count=len(opened),
            most=1,
        )
    return next(iter(opened.values()), None)


def _plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message whose parts all have a type, and whose pictures have one key each."""
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return {**message, "content": content or ""}
    parts = [content] if isinstance(content, Mapping) else content
    return {**message, "content": [_plain_part(part) for part in parts]}


def _plain_part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        return {"type": "image", "image": part}
    kind = str(part.get("type") or ("text" if "text" in part else "image"))
    if kind in ("text", "input_text", "output_text"):
        return {"type": "text", "text": str(part.get("text") or part.get("content") or "")}
    if kind not in ("image", "image_url", "input_image"):
        raise UsageError(
            "Messages may have parts of the types text and image, not {kind!r}.", kind=kind
        )
    source = next((part[key] for key in _PICTURE_KEYS if part.get(key) is not None), None)
    if isinstance(source, Mapping):
        source = source.get("url")
    return {"type": "image"} if source is None else {"type": "image", "image": source}
