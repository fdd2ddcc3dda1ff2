"""What training minimises: the answers, and throw-away labels read off the picture features."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tools.demo_model.batches import (
    CELLS,
    IGNORE,
    PATCH_CLASSES,
    SLOT_CLASSES,
    SLOTS,
    Batch,
    TextBatch,
)
from tools.demo_model.network import Dims, Weights, decode, encode_patches, project

READER_HEADS = 4
BACKGROUND_WEIGHT = 0.2


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How the losses are weighed against each other.

    picture_share  of the labels that are read off the picture features
    name_share     of the cells that are read where a question names a shape
    evenness       see answer_loss
    """

    picture_share: float
    name_share: float
    evenness: float


def reader_shapes(dims: Dims) -> dict[str, tuple[int, ...]]:
    """Tensors of the label readers; they are not part of the checkpoint."""
    return {
        "reader.patch.weight": (sum(PATCH_CLASSES), dims.vision_hidden),
        "reader.slot_embed.weight": (SLOTS, dims.hidden),
        "reader.key.weight": (dims.hidden, dims.hidden),
        "reader.value.weight": (dims.hidden, dims.hidden),
        "reader.inner.weight": (dims.mlp, dims.hidden),
        "reader.slot.weight": (sum(SLOT_CLASSES), dims.mlp),
        "reader.name.weight": (CELLS, dims.hidden),
    }


def picture_loss(
    weights: Weights, dims: Dims, batch: Batch, seen: Tensor, features: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Read the dense labels off the vision tower and the projector.

    seen      [batch, patches, vision_hidden]
    features  [batch, image tokens, hidden]
    Returns the loss, and how often each label is right (fractions).
    """
    patch_logits = functional.linear(seen, weights["reader.patch.weight"]).float()
    slot_logits = _read_slots(weights, dims, features).float()
    loss, right = torch.zeros(()), {}
    for names, logits, labels, classes in (
        (("patch kind", "patch color", "patch index", "patch value"), patch_logits,
         batch.patch_labels, PATCH_CLASSES),
        (("slot kind", "slot color", "slot value"), slot_logits,
         batch.slot_labels, SLOT_CLASSES),
    ):  # fmt: skip
        for name, part, label in zip(
            names, torch.split(logits, list(classes), -1), labels.unbind(-1), strict=True
        ):
            balance = torch.ones(part.shape[-1])
            if name == "patch kind":
                balance[0] = BACKGROUND_WEIGHT
            flat, want = part.flatten(0, 1), label.flatten()
            asked = want != IGNORE
            flat, want = flat[asked], want[asked]
            if len(want):
                loss = loss + functional.cross_entropy(flat, want, balance)
                drawn = want > 0 if name in ("patch kind", "slot kind") else want >= 0
                right[name] = (flat.argmax(-1) == want)[drawn].float().mean()
    return loss, right


def _read_slots(weights: Weights, dims: Dims, features: Tensor) -> Tensor:
    """One attention from each named place to the image tokens: [batch, slots, classes]."""
    batch, width = len(features), dims.hidden // READER_HEADS
    query = weights["reader.slot_embed.weight"].view(SLOTS, READER_HEADS, width)
    key = functional.linear(features, weights["reader.key.weight"])
    value = functional.linear(features, weights["reader.value.weight"])
    key, value = (
        part.view(batch, -1, READER_HEADS, width).transpose(1, 2) for part in (key, value)
    )
    scores = query.transpose(0, 1) @ key.transpose(-1, -2) / math.sqrt(width)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, SLOTS, -1)
    inner = functional.linear(
        mixed + weights["reader.slot_embed.weight"], weights["reader.inner.weight"]
    )
    return functional.linear(functional.gelu(inner), weights["reader.slot.weight"])


def answer_logits(
    weights: Weights, dims: Dims, text: TextBatch, features: Tensor, bos: int
) -> tuple[Tensor, Tensor]:
    """Read answers and cells off the decoder.

    Returns [answer tokens, vocab] logits of the answer tokens, and [names, cells] logits of where
    the named shapes are, read after half of the layers; both float32.
    """
    hidden, middle = decode(weights, dims, features, text.packed, bos)
    rows, places = text.answer_at.unbind(1)
    answers = functional.linear(hidden[rows, places], weights["lm_head.weight"])
    rows, places = text.name_at.unbind(1)
    reader = weights.get("reader.name.weight", hidden.new_zeros(CELLS, dims.hidden))
    named = functional.rms_norm(middle[rows, places], (dims.hidden,), eps=1e-5)
    return answers.float(), functional.linear(named, reader).float()


def answer_loss(logits: Tensor, text: TextBatch, evenness: float) -> Tensor:
    """Cross entropy of the answer tokens.

    evenness  0 counts every token alike, so that long answers weigh more than a yes or no;
              1 would count every answer alike
    """
    if evenness == 0:
        return functional.cross_entropy(logits, text.answer_ids)
    lengths = torch.bincount(text.owner)[text.owner]
    share = lengths.float() ** -evenness
    losses = functional.cross_entropy(logits, text.answer_ids, reduction="none")
    return (losses * share).sum() / share.sum()


def total_loss(
    weights: Weights, dims: Dims, batch: Batch, bos: int, balance: Balance
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one batch: answers if it has any, plus the shares of the labels."""
    dtype = weights["model.vision.boi"].dtype
    seen = encode_patches(weights, dims, batch.patches.to(dtype))
    features = project(weights, dims, seen)
    loss, right = picture_loss(weights, dims, batch, seen, features)
    loss = loss * balance.picture_share
    text = batch.text
    if text is None:
        return loss, right
    logits, cells = answer_logits(weights, dims, text, features, bos)
    answers = answer_loss(logits, text, balance.evenness)
    right["answer loss"] = answers.detach()
    if balance.name_share and len(cells):
        loss = loss + balance.name_share * functional.cross_entropy(cells, text.name_cells)
        right["name cell"] = (cells.argmax(-1) == text.name_cells).float().mean()
    return loss + answers, right
