"""A folder loaded by transformers, whose layers our own model computes with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import Role, expected_tensors
from cogvlm2_lite.config import read_config
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.weights.slots import Linear
from tests.helpers.conversion import GOLDEN


class TreeConfig(PreTrainedConfig):
    """Whatever config.json holds."""

    model_type = "cogvlm2_lite_tree"


class Tree(PreTrainedModel):
    """Modules with the names of the checkpoint and no mathematics of its own."""

    config_class = TreeConfig

    def __init__(self, config: Any, folder: Path) -> None:
        super().__init__(config)
        specs = expected_tensors(read_config(folder))
        for name, spec in specs.items():
            owner, leaf = self._owner(name)
            bias = name.removesuffix("weight") + "bias" in specs
            if spec.role is Role.LINEAR:
                rows, columns = spec.shape
                parent, module = self._owner(name.removesuffix(".weight"))
                setattr(parent, module, nn.Linear(columns, rows, bias=bias))
            elif not isinstance(owner, nn.Linear):
                setattr(owner, leaf, nn.Parameter(torch.empty(spec.shape), requires_grad=False))
        self.post_init()

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """Find, and make if missing, the module that holds a name's last part."""
        module: nn.Module = self
        *path, leaf = name.split(".")
        for step in path:
            if not hasattr(module, step):
                setattr(module, step, nn.Module())
            module = getattr(module, step)
        return module, leaf

    def _init_weights(self, module: nn.Module) -> None:
        """Every weight comes from the file."""

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.lm_head
        return head


class Borrowed:
    """A stored weight that is a module of another library."""

    kind = "borrowed"

    def __init__(self, module: nn.Module, nbytes: int) -> None:
        self._module, self.nbytes, self.uses = module, nbytes, 0

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        self.uses += 1
        y: Tensor = self._module(x)  # its own bias is in it
        return y

    def multiply_in_bytes(self, x: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        return [self.multiply(x, bias) for x in xs]

    def multiply_transposed(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def dequantize(self, to: torch.dtype) -> Tensor:
        raise NotImplementedError


def lend(tree: Tree, model: Model) -> list[Borrowed]:
    """Put transformers' modules into the slots of a model that has all its weights in memory.

    What is no matrix must have arrived in transformers with the same numbers.
    """
    runtime, lent = model.runtime, []
    tower, decoder = runtime.parts.tower, runtime.parts.decoder
    pieces: tuple[HasSlots, ...] = (
        tower.embedding, *tower.blocks, runtime.parts.projector,
        decoder.embedding, *decoder.blocks, decoder.head,
    )  # fmt: skip
    for slot in (slot for piece in pieces for slot in piece.slots()):
        owner, _, leaf = slot.name.rpartition(".")
        module = tree.get_submodule(owner)
        if isinstance(slot, Linear):
            assert slot.stored is not None, slot.name
            slot.stored = Borrowed(module, slot.stored.nbytes)
            lent.append(slot.stored)
        else:
            assert torch.equal(slot.tensor, getattr(module, leaf)), slot.name
    return lent


def load_tree(folder: Path) -> Tree:
    """Let transformers load a folder; nothing may be missing or left over."""
    config = TreeConfig.from_pretrained(folder)
    loaded: Any = Tree.from_pretrained(folder, folder, config=config, output_loading_info=True)
    tree, report = loaded
    assert not report["missing_keys"], report
    assert not report["unexpected_keys"], report
    assert not report["mismatched_keys"], report
    for module in tree.modules():
        # bitsandbytes' packed path repacks weights in place and rounds their scales.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    assert isinstance(tree, Tree)
    return tree.eval()


def both_logits(folder: Path, tree: Tree, dtype: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Answer golden cases with our weights, then with the modules of transformers."""
    model = cogvlm2_lite.load(folder, device="cpu", dtype=dtype)
    golden = load_file(GOLDEN / "golden_fp32.safetensors")
    cases = ("one_image", "text_only")
    with torch.inference_mode():
        ours = [answer(model, golden, case) for case in cases]
        lent = lend(tree, model)
        theirs = [answer(model, golden, case) for case in cases]
    assert lent
    assert all(weight.uses for weight in lent)
    yield from zip(ours, theirs, strict=True)


def answer(model: Model, golden: dict[str, Tensor], case: str) -> Tensor:
    """Return the logits of a golden case."""
    features = model.encode_image(golden["in.image"]) if case == "one_image" else None
    return model.forward(
        golden[f"{case}.input_ids"], golden[f"{case}.token_type_ids"], image_features=features
    )
