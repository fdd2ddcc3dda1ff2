"""What a training step takes: samples, their pictures, and the matrices that are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from cogvlm2_lite.rows.labels import NO_LABEL


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingPicture:
    """A picture that may belong to several samples.

    key     differs for different pictures; samples with equal keys share what is computed of it
    pixels  returns [1, 3, image_size, image_size], normalised
    """

    key: str
    pixels: Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSample:
    """One sequence: a conversation that ends with the answer to be learnt.

    input_ids, token_type_ids, labels  [1, tokens] int64; position i predicts labels[i + 1]
    """

    input_ids: Tensor
    token_type_ids: Tensor
    labels: Tensor
    picture: TrainingPicture | None = None

    @property
    def label_positions(self) -> Tensor:
        """Positions whose next token is trained, [n] int64."""
        return (self.labels[0, 1:] != NO_LABEL).nonzero().squeeze(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedPair:
    """The trained matrices of one linear layer, float32 leaves with gradients.

    down  lora_A, [rank, in_features]
    up    lora_B, [out_features, rank]
    """

    down: Tensor
    up: Tensor
