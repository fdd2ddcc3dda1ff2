"""Turn samples into tensors: patches, packed conversations, dense labels."""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from tools.demo_model.drawing import COLOR_NAMES, KINDS, Chart, Mark, Picture, Scene, Sign, marks
from tools.demo_model.generator import Sample, Split, samples
from tools.demo_model.network import Dims, Packed
from tools.demo_model.prompt import prompt_text
from tools.demo_model.questions import Conversation
from tools.demo_model.tokenizer import BOS, EOS, PAD
from tools.demo_model.words import LONGEST_STRING

CLIP_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
CLIP_STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
IGNORE = -100
CELLS = 9
BARS = 5
SLOTS = CELLS + LONGEST_STRING + BARS + 1
KIND_CLASSES, COLOR_CLASSES, INDEX_CLASSES, VALUE_CLASSES = len(KINDS), len(COLOR_NAMES), 9, 10
PATCH_CLASSES = (KIND_CLASSES, COLOR_CLASSES, INDEX_CLASSES, VALUE_CLASSES)
SLOT_CLASSES = (KIND_CLASSES, COLOR_CLASSES, VALUE_CLASSES)
FIRST_POSITION_AFTER_PICTURE = 4

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The tokenizer with the ids that the layout needs."""

    tokenizer: Tokenizer
    bos: int
    eos: int
    pad: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no special tokens added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """The conversations of a batch.

    answer_at    [answer tokens, 2] (row, text token) whose next token is an answer token
    answer_ids   [answer tokens] the token that follows
    owner        [answer tokens] number of the conversation in `asked`
    name_at      [names, 2] (row, text token) where a question has just named a shape
    name_cells   [names] the grid cell of that shape
    """

    packed: Packed
    answer_at: Tensor
    answer_ids: Tensor
    owner: Tensor
    name_at: Tensor
    name_cells: Tensor
    asked: tuple[Conversation, ...]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of one batch; `text` is None in a batch without questions.

    patches      [batch, patches, patch values] normalised pixels, float32
    patch_labels [batch, patches, 4] kind, colour, index, bar value; -100 = not asked
    slot_labels  [batch, slots, 3] kind, colour, bar value of each named place; -100 = not asked
    """

    patches: Tensor
    patch_labels: Tensor
    slot_labels: Tensor
    text: TextBatch | None


def make_encoder(tokenizer: Tokenizer) -> Encoder:
    """Look up the special tokens once."""
    vocabulary = tokenizer.get_vocab()
    bos, eos, pad = (vocabulary[token] for token in (BOS, EOS, PAD))
    return Encoder(tokenizer=tokenizer, bos=bos, eos=eos, pad=pad)


def make_batch(
    split: Split, seed: int, images: int, text_tokens: int, dims: Dims, encoder: Encoder,
    shares: dict[str, float] | None = None,
    focus: dict[str, float] | None = None,
) -> Batch:  # fmt: skip
    """Draw a batch; with text_tokens = 0 it holds pictures and labels only."""
    questions = text_tokens // 9
    drawn = list(islice(samples(split, seed, questions, shares, focus), images))
    patches = torch.from_numpy(np.stack([image_patches(one.image, dims) for one in drawn]))
    patch_labels = np.stack([_patch_labels(marks(one.picture), dims) for one in drawn])
    slot_labels = np.stack([_slot_labels(one.picture) for one in drawn])
    return Batch(
        patches=patches,
        patch_labels=torch.from_numpy(patch_labels),
        slot_labels=torch.from_numpy(slot_labels),
        text=_pack(drawn, text_tokens, dims, encoder) if text_tokens else None,
    )


def image_patches(image: Image.Image, dims: Dims) -> Floats:
    """Preprocess as released and cut into patches: [patches, channel x row x column]."""
    side, grid, patch = dims.image_side, dims.grid, dims.patch_side
    small = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    pixels = (np.asarray(small, np.float32) / 255 - CLIP_MEAN) / CLIP_STD
    cut: Floats = pixels.reshape(grid, patch, grid, patch, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(cut).reshape(dims.patches, -1)


def _patch_labels(found: list[Mark], dims: Dims) -> Ints:
    """Label each patch with the mark that covers most of it: [patches, 4]."""
    labels = np.full((dims.patches, 4), IGNORE, np.int64)
    labels[:, 0] = 0
    edges = np.arange(dims.grid + 1) / dims.grid
    low, high = edges[:-1], edges[1:]
    across = _overlap([(mark.left, mark.right) for mark in found], low, high)
    down = _overlap([(mark.top, mark.bottom) for mark in found], low, high)
    area = (down[:, :, None] * across[:, None, :]).reshape(len(found), -1) * dims.patches
    best = area.argmax(0)
    rows = np.array([
        (KINDS.index(mark.kind), COLOR_NAMES.index(mark.color), mark.index,
         mark.value if mark.kind == "bar" else IGNORE)
        for mark in found
    ])  # fmt: skip
    covered = area.max(0) > 0.25
    labels[covered] = rows[best][covered]
    return labels


def _overlap(spans: list[tuple[float, float]], low: Floats, high: Floats) -> Floats:
    start, end = np.array(spans).T[:, :, None]
    shared: Floats = np.clip(np.minimum(end, high) - np.maximum(start, low), 0, None)
    return shared


def _slot_labels(picture: Picture) -> Ints:
    """Label the named places: 9 grid cells, 5 characters, 5 bars, the sign as a whole."""
    labels = np.full((SLOTS, 3), IGNORE, np.int64)
    found = marks(picture)
    if isinstance(picture, Scene):
        labels[:CELLS, :2] = 0
        for mark in found:
            labels[mark.index, :2] = KINDS.index(mark.kind), COLOR_NAMES.index(mark.color)
    elif isinstance(picture, Sign):
        labels[CELLS : CELLS + LONGEST_STRING, 0] = 0
        for mark in found:
            labels[CELLS + mark.index, 0] = KINDS.index(mark.kind)
        labels[-1, 1] = COLOR_NAMES.index(picture.color)
    elif isinstance(picture, Chart):
        first = CELLS + LONGEST_STRING
        labels[first : first + BARS, 1:] = 0
        for mark in found:
            labels[first + mark.index, 1:] = COLOR_NAMES.index(mark.color), mark.value
    return labels


def _pack(drawn: list[Sample], width: int, dims: Dims, encoder: Encoder) -> TextBatch:
    """Lay conversations one after another behind each picture until the row is full."""
    shape = (len(drawn), width)
    ids, positions = np.full(shape, encoder.pad, np.int64), np.zeros(shape, np.int64)
    block, sees = np.full(shape, -1, np.int64), np.zeros(shape, bool)
    at: list[tuple[int, int]] = []
    targets: list[int] = []
    owner: list[int] = []
    names: list[tuple[int, int, int]] = []
    asked: list[Conversation] = []
    for row, sample in enumerate(drawn):
        column = 0
        for one in sample.conversations:
            prompt = encoder.encode(prompt_text(one))
            answer = encoder.encode(f" {one.answer}")
            tokens = prompt + answer
            end = column + len(tokens)
            if end > width:
                continue
            ids[row, column:end] = tokens
            first = FIRST_POSITION_AFTER_PICTURE if one.sees_picture else 1
            positions[row, column:end] = np.arange(first, first + len(tokens))
            block[row, column:end] = len(asked)
            sees[row, column:end] = one.sees_picture
            start = column + len(prompt) - 1
            at += [(row, place) for place in range(start, end)]
            targets += [*answer, encoder.eos]
            owner += [len(asked)] * (len(answer) + 1)
            names += [(row, column + place, cell) for place, cell in _names(encoder, one)]
            asked.append(one)
            column = end
    packed = Packed(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        mask=_mask(torch.from_numpy(block), torch.from_numpy(sees), dims),
    )
    found = torch.tensor(names).view(-1, 3)
    return TextBatch(
        packed=packed,
        answer_at=torch.tensor(at),
        answer_ids=torch.tensor(targets),
        owner=torch.tensor(owner),
        name_at=found[:, :2],
        name_cells=found[:, 2],
        asked=tuple(asked),
    )


def _names(encoder: Encoder, asked: Conversation) -> list[tuple[int, int]]:
    """The last token of each shape that the question names, and the shape's cell."""
    if not asked.named:
        return []
    text = prompt_text(asked)
    spans = encoder.tokenizer.encode(text, add_special_tokens=False).offsets
    found = []
    for name, cell in asked.named:
        end = text.rindex(name) + len(name)
        token = max(place for place, (start, _) in enumerate(spans) if start < end)
        found.append((token, cell))
    return found


def _mask(block: Tensor, sees: Tensor, dims: Dims) -> Tensor:
    """Who may look at whom, in the order boi, patches, bos, eoi, text; 0 or -inf."""
    batch, text = block.shape
    picture = dims.image_tokens + 1
    bos, eoi, first = picture, picture + 1, picture + 2
    allowed = torch.zeros(batch, first + text, first + text, dtype=torch.bool)
    allowed[:, :picture, :picture] = torch.ones(picture, picture).tril().bool()
    allowed[:, :, bos] = True
    allowed[:, eoi, : eoi + 1] = True
    allowed[:, first:, :picture] = sees.unsqueeze(-1)
    allowed[:, first:, eoi] = sees
    same = block.unsqueeze(2) == block.unsqueeze(1)
    allowed[:, first:, first:] = same & torch.ones(text, text).tril().bool()
    mask = torch.zeros(allowed.shape, dtype=torch.bfloat16)
    return mask.masked_fill_(~allowed, float("-inf")).unsqueeze(1)
