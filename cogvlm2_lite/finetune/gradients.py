"""The loss and the gradients of an adapter, for programs that train by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.finetune.network import LearningNetwork
from cogvlm2_lite.finetune.samples import TrainedPair, TrainingPicture, TrainingSample
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.rows.labels import NO_LABEL
from cogvlm2_lite.weights.adapter import pairs_of, peft_name
from cogvlm2_lite.weights.adapter_names import ACTS_ON, ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog


def loss_and_gradients(
    path: str | Path,
    samples: Sequence[Mapping[str, Tensor | None]],
    *,
    adapter: Mapping[str, Tensor],
    alpha: float,
    acts_on: str = ALL_ROWS,
    device: str = "cpu",
    dtype: str = "float32",
    rope: str = "reference",
) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of some samples and its gradient with respect to an adapter.

    path     a model folder, 16-bit or quantized; "demo": the small included model
    samples  input_ids, token_type_ids and labels, each [1, tokens]; labels are -100 where nothing
             is trained, and position i predicts labels[i + 1]. pixel_values [1, 3, H, W] or None
    adapter  peft's tensor names to float32 tensors: lora_A [rank, in], lora_B [out, rank]
    alpha    the adapter adds alpha / rank * B A
    acts_on  "all" rows, as in peft, or "behind the picture"
    device, dtype, rope  as in `cogvlm2_lite.load`

    Returns the mean loss over all label tokens of all samples, and the gradients by peft's names,
    float32.

    Raises UsageError if shapes do not agree or nothing is trained, AdapterError if the adapter does
    not belong to the model, and CheckpointError for a damaged folder.
    """
    if acts_on not in ACTS_ON:
        raise UsageError(
            "Unknown value {value!r} for {param}.",
            hint="Use one of {names}.",
            param="acts_on",
            value=acts_on,
            names=", ".join(ACTS_ON),
        )
    if not alpha > 0:
        raise UsageError("{param} must be above 0, not {value}.", param="alpha", value=alpha)
    folder = model_folder(str(path))
    config = read_config(folder)
    different: list[Tensor] = []
    checked = [_sample(n, each, config, different) for n, each in enumerate(samples)]
    if not sum(len(sample.label_positions) for sample in checked):
        raise UsageError("The samples have no labels, so there is nothing to train.")
    found, rank = pairs_of(adapter, config)
    compute = choose_compute(device, dtype)
    pairs = {name: TrainedPair(down=_leaf(a), up=_leaf(b)) for name, (a, b) in found.items()}
    network = LearningNetwork.for_samples(
        Catalog.open(folder, config),
        pairs,
        checked,
        scale=alpha / rank,
        acts_on=acts_on,
        compute=compute,
        rope=RopeMode(rope),
    )
    loss = network.accumulate(checked)
    gradients = {}
    for name, pair in pairs.items():
        for side, tensor in (("A", pair.down), ("B", pair.up)):
            assert tensor.grad is not None
            gradients[peft_name(name, side)] = tensor.grad
    return loss, gradients


def _leaf(tensor: Tensor) -> Tensor:
    leaf = tensor.detach().to(torch.float32, copy=True).requires_grad_()
    leaf.grad = torch.zeros_like(leaf)
    return leaf


def _sample(
    number: int,
    given: Mapping[str, Tensor | None],
    config: ModelConfig,
    different: list[Tensor],
) -> TrainingSample:
    values = {}
    for name in ("input_ids", "token_type_ids", "labels"):
        value = given.get(name)
        shape = None if value is None else list(value.shape)
        if value is None or value.dim() != 2 or value.shape[0] != 1 or not value.shape[1]:
            raise UsageError(
                "{name} of sample {number} must have the shape [1, tokens], not {shape}.",
                name=name,
                number=number,
                shape=shape,
            )
        values[name] = value.to(torch.int64).cpu()
    ids, labels = values["input_ids"], values["labels"]
    for name, value in values.items():
        if value.shape != ids.shape:
            raise UsageError(
                "{name} must have the shape of input_ids, {expected}, not {shape}.",
                name=name,
                expected=list(ids.shape),
                shape=list(value.shape),
            )
    trained = labels[labels != NO_LABEL]
    for name, value in (("input_ids", ids), ("labels", trained)):
        if value.numel() and (int(value.min()) < 0 or int(value.max()) >= config.vocab_size):
            raise UsageError(
                "{name} must be between 0 and {most}.", name=name, most=config.vocab_size - 1
            )
    pixels, vision = given.get("pixel_values"), config.vision
    places = int((values["token_type_ids"] == 1).sum())
    expected = 0 if pixels is None else vision.image_tokens
    if places != expected:
        raise UsageError(
            "The prompt has places for {expected} image tokens, not for {count}.",
            expected=places,
            count=expected,
        )
    side = vision.image_size
    if pixels is not None and tuple(pixels.shape) != (1, vision.in_channels, side, side):
        raise UsageError(
            "pixel_values must have the shape [batch, {expected}], not {shape}.",
            expected=f"{vision.in_channels}, {side}, {side}",
            shape=list(pixels.shape),
        )
    return TrainingSample(
        input_ids=ids,
        token_type_ids=values["token_type_ids"],
        labels=labels,
        picture=None if pixels is None else _picture(pixels, _text_before(values), different),
    )


def _text_before(values: Mapping[str, Tensor]) -> list[int]:
    """Return the ids of the text before the end of the picture: normally bos alone."""
    image = values["token_type_ids"][0] == 1
    end = int(image.nonzero().max())
    before: list[int] = values["input_ids"][0, :end][~image[:end]].tolist()
    return before


def _picture(pixels: Tensor, before: Sequence[int], different: list[Tensor]) -> TrainingPicture:
    """Return a picture; equal ones behind equal text get the same key.

    What is computed of [bos, picture] belongs to the key, so the text is a part of it.
    """
    found = (i for i, each in enumerate(different) if torch.equal(each, pixels))
    number = next(found, len(different))
    if number == len(different):
        different.append(pixels)
    return TrainingPicture(key=f"{number} {list(before)}", pixels=lambda: pixels)
