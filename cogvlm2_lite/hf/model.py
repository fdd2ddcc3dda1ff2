"""The model that transformers sees. Every forward pass is a step of this program's engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import logging

from cogvlm2_lite.architectures.architecture import expected_tensors
from cogvlm2_lite.engine.model import Model, load_with
from cogvlm2_lite.engine.token_rows import Row, TokenRows, prompt_of_ids
from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.hf.arguments import read_arguments
from cogvlm2_lite.hf.cache import RowCache
from cogvlm2_lite.hf.config import CogVLM2Config
from cogvlm2_lite.hf.pictures import open_any
from cogvlm2_lite.hf.rows import PromptRow, prompt_rows
from cogvlm2_lite.inputs.image import pixel_values as preprocess
from cogvlm2_lite.inputs.prompt import encode_prompt

logger = logging.get_logger(__name__)

_PASSED_ALONG = ("tokenizer", "assistant_tokenizer")


class CogVLM2ForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """CogVLM2 with the interface of transformers.

    It holds no weights as modules: the engine loads and moves them by its memory plan. `engine` is
    the loaded model, whose `plan` shows what is where.

    longest  prompt and answer together end at this many tokens, if a call sets no limit
    """

    config_class = CogVLM2Config
    main_input_name = "input_ids"
    hf_device_map: dict[str, Any]
    input_modalities = ["image", "text"]  # noqa: RUF012 - the name is the base class's

    def __init__(self, config: CogVLM2Config, *_: Any, engine: Model | None = None) -> None:
        if engine is None:
            raise UsageError(
                "A CogVLM2 model without weights can't be made.",
                hint="Load one with from_pretrained(FOLDER).",
            )
        config._attn_implementation = None  # our own kernels
        super().__init__(config)
        self.engine = engine
        self.longest: int | None = None
        self._rows = TokenRows(engine)
        self._lock = threading.Lock()
        # An empty parameter, because programs ask the first one for the device and number type.
        anchor = torch.empty(0, dtype=engine.runtime.dtype, device=engine.runtime.last_device)
        self.anchor = nn.Parameter(anchor, requires_grad=False)
        self.eval()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *_: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """Open a model folder in 16 or 4 bits.

        vram, ram, device, offload, context, kv, rope, parallel, pictures, adapter, any_base
                    as in `cogvlm2_lite.load`
        device_map  "auto", or one device for the whole model
        max_memory  {0: "10GiB", "cpu": "30GiB"}: the same as vram and ram
        dtype       number type of the computation; torch_dtype is the same

        A name such as "THUDM/cogvlm2-llama3-chat-19B" is looked up in the Hugging Face cache;
        nothing is downloaded. Raises what `cogvlm2_lite.load` raises.
        """
        generation = kwargs.pop("generation_config", None)
        arguments = read_arguments(pretrained_model_name_or_path, kwargs)
        folder = arguments.options.folder
        engine = load_with(arguments.options)
        for remark in engine.remarks:
            logger.warning(str(remark))
        if not isinstance(config, CogVLM2Config):
            config = CogVLM2Config.from_pretrained(folder)
        config.dtype = engine.runtime.dtype
        model = cls(config, engine=engine)
        if kwargs.get("device_map") is not None:
            # A pipeline does not move a model that has this attribute, as for other models.
            model.hf_device_map = {"": model.device}
        model.generation_config = generation or _generation_config(folder, engine)
        # As a default for calls without a limit: transformers would warn of it at every call with
        # max_new_tokens.
        model.longest = model.generation_config.max_length
        model.generation_config.max_length = None
        if arguments.loading_info:
            names = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
            return model, {name: set() for name in names}
        return model

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        images: Sequence[Sequence[Tensor]] | None = None,
        cache: RowCache | None = None,
        past_key_values: RowCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> Any:
        """Return logits after each token, and with `labels` the mean loss of the next tokens.

        input_ids       [batch, tokens]; with a cache, only the new tokens
        attention_mask  [batch, tokens], or all tokens with those in the cache; 0 for padding.
                        Padding is left out, so each row gets the same bits as alone
        token_type_ids  [batch, tokens], 1 for image tokens; None: where `config.image_token_id` is
        pixel_values    [pictures, 3, side, side] for all pictures of the batch, in order
        images          the same as the released model takes it: a list of pictures for each row
        labels          [batch, tokens]; -100 is ignored
        logits_to_keep  return only the last positions, or those of an index tensor; 0: all
        Returns         `logits` [batch, kept tokens, vocab] float32, `loss` and `cache`
        """
        if input_ids is None or inputs_embeds is not None:
            raise UsageError("The model takes input_ids, and no inputs_embeds.")
        # `generate` passes the tokenizer that it needs for stop texts to every step.
        unknown = sorted(
            key for key in others if key not in _PASSED_ALONG and others[key] is not None
        )
        if unknown:
            raise UsageError(
                "The model takes no {names}; it derives positions from input_ids.",
                names=", ".join(unknown),
            )
        if output_attentions or output_hidden_states:
            raise UsageError("The model does not return attentions or hidden states.")
        cache = past_key_values if cache is None else cache
        if cache is not None and not isinstance(cache, RowCache):
            raise UsageError(
                "The model takes only a cache that it returned, not {kind}.",
                kind=type(cache).__name__,
            )
        # Weights and caches that are made here outlive the caller's inference mode.
        with self._lock, torch.inference_mode(False), torch.no_grad():
            try:
                if cache is not None and cache.rows:
                    logits = self._continue(input_ids, attention_mask, cache)
                else:
                    cache = RowCache(self._rows) if cache is None else cache
                    last = (
                        isinstance(logits_to_keep, int) and logits_to_keep == 1 and labels is None
                    )
                    rows = self._prompt_rows(
                        input_ids, attention_mask, token_type_ids, pixel_values, images
                    )
                    logits = self._begin(rows, input_ids.shape[1], cache, last=last)
            except DoesNotFitError as error:
                if len(input_ids) == 1:
                    raise
                raise DoesNotFitError(
                    "{count} rows at once do not fit in memory. {why}",
                    hint="Pass fewer rows at a time, or load the model with a shorter context.",
                    count=len(input_ids),
                    why=error.message,
                ) from error
            loss = None if labels is None else _loss(logits, labels)
            if isinstance(logits_to_keep, Tensor):
                logits = logits[:, logits_to_keep]
            elif logits_to_keep:
                logits = logits[:, -logits_to_keep:]
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits.to(self.device),
            cache=None if use_cache is False else cache,
        )
        return output.to_tuple() if return_dict is False else output

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Generate tokens, as for every model of transformers; see its documentation.

        It ends when the context is full. Rows may be padded on either side.
        """
        # 1. The folder's own limit counts if the call has none.
        if self.longest is not None and not self._limited(generation_config, kwargs):
            kwargs["max_length"] = self.longest
        ids = kwargs.get("input_ids") if inputs is None else inputs
        if isinstance(ids, Tensor) and ids.dim() == 2:
            # 2. transformers would take the places of a picture for padding.
            if kwargs.get("attention_mask") is None:
                kwargs["attention_mask"] = _padding_mask(ids, self.config.image_token_id)
            # 3. Assisted generation needs a cache from the beginning.
            if kwargs.get("past_key_values") is not None:
                kwargs["cache"] = kwargs.pop("past_key_values")
            if kwargs.get("cache") is None and kwargs.get("use_cache") is not False:
                kwargs["cache"] = RowCache(self._rows)
            # 4. End before the context overflows.
            context = self.engine.plan.context
            full = _ContextFull(context, kwargs["attention_mask"], kwargs.get("cache"))
            criteria = kwargs.get("stopping_criteria") or []
            kwargs["stopping_criteria"] = StoppingCriteriaList([*criteria, full])
        return super().generate(inputs, generation_config, *args, **kwargs)

    def _limited(self, config: GenerationConfig | None, given: dict[str, Any]) -> bool:
        """Return whether a call, or the model's generation_config, limits the length."""
        names = ("max_length", "max_new_tokens")
        configs = (self.generation_config, config)
        return any(given.get(name) is not None for name in names) or any(
            getattr(each, name, None) is not None for each in configs for name in names
        )

    def build_conversation_input_ids(
        self,
        tokenizer: Any,
        *,
        query: str,
        history: Sequence[tuple[str, str]] | None = None,
        images: Sequence[Any] | None = None,
        template_version: str | None = None,
        answer: str | None = None,
    ) -> dict[str, Any]:
        """Return a question as the released model's method of this name does.

        Programs for the released code call it. images has at most one picture. Returns input_ids,
        token_type_ids and attention_mask, each [tokens]; images: a list with [3, side, side], or
        None; and labels, which are None.
        """
        config, pictures = self.engine.config, list(images or ())
        if len(pictures) > config.architecture.pictures_per_conversation:
            raise UsageError(
                "Too many pictures for one conversation: {count}; the model takes {most}.",
                hint="Ask about each picture in a separate conversation, or combine them into one.",
                count=len(pictures),
                most=config.architecture.pictures_per_conversation,
            )
        own = self.engine.engine.tokenizer
        prompt = encode_prompt(
            own,
            config,
            query,
            history=tuple(history or ()),
            has_image=bool(pictures),
            template=template_version,
            context=self.engine.plan.context,
        )
        more = [] if answer is None else [*own.encode(answer), config.eos_token_ids[0]]
        ids = torch.from_numpy(
            np.concatenate([prompt.input_ids[0], np.array(more, dtype=np.int64)])
        )
        types = torch.zeros_like(ids)
        types[: prompt.tokens] = torch.from_numpy(prompt.token_type_ids[0])
        pixels = [torch.from_numpy(preprocess(open_any(p), config.vision))[0] for p in pictures]
        return {
            "input_ids": ids,
            "token_type_ids": types,
            "attention_mask": torch.ones_like(ids),
            "images": pixels or None,
            "labels": None,
        }

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of weights of the folder; none of them can be trained here."""
        specs = expected_tensors(self.engine.config).values()
        return 0 if only_trainable else sum(spec.numel for spec in specs)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Return the bytes of weights, caches and scratch in memory now."""
        return self.engine.runtime.held_bytes

    def save_pretrained(self, *_: Any, **__: Any) -> NoReturn:
        """Raise UsageError: the weights are already in a folder."""
        raise UsageError(
            "The model can't be saved from here: its weights are unchanged in {folder}.",
            hint="Copy that folder.",
            folder=self.engine.folder,
        )

    def push_to_hub(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override]
        """Raise UsageError, as save_pretrained does."""
        self.save_pretrained()

    def load_adapter(self, *_: Any, **__: Any) -> NoReturn:
        """Raise UsageError: an adapter is loaded together with the model."""
        raise UsageError(
            "An adapter can't be added to a loaded model: it counts in the memory plan.",
            hint='Load it with the model: from_pretrained(FOLDER, adapter="ADAPTER").',
        )

    def add_adapter(self, *_: Any, **__: Any) -> NoReturn:
        """Raise UsageError: a new adapter is trained with `finetune`."""
        raise UsageError(
            "The model can't be trained through transformers: it has no modules.",
            hint="Train an adapter with `cogvlm2-lite finetune`.",
        )

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """Do nothing: CogVLM2 has no tied weights."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Accept `to`, `cuda`, `half` and others where they change nothing.

        Raises UsageError for another device or number type, which are chosen at loading.
        """
        anchor = self.anchor
        moved = fn(anchor.data)
        if moved.device.type != anchor.device.type:
            raise UsageError(
                "The model runs on {device} and can't be moved to {other}.",
                hint='Choose the device at loading: from_pretrained(FOLDER, device_map="{other}").',
                device=str(anchor.device),
                other=str(moved.device),
            )
        if moved.dtype != anchor.dtype:
            raise UsageError(
                "The model computes in {kind} and can't be converted to {other}.",
                hint="Choose the number type at loading: from_pretrained(FOLDER, dtype={other}).",
                kind=str(anchor.dtype),
                other=str(moved.dtype),
            )
        return self

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `forward` makes the cache

    def _prompt_rows(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        pixel_values: Tensor | None,
        images: Sequence[Sequence[Tensor]] | None,
    ) -> list[PromptRow]:
        if attention_mask is None:
            attention_mask = _padding_mask(input_ids, self.config.image_token_id)
        if token_type_ids is None:
            token_type_ids = (input_ids == self.config.image_token_id).long()
        pixels = pixel_values if images is None else _stack(images, len(input_ids))
        return prompt_rows(
            input_ids,
            attention_mask[:, -input_ids.shape[1] :],
            token_type_ids[:, -input_ids.shape[1] :],
            pixels,
            image_tokens=self.engine.config.vision.image_tokens,
        )

    def _begin(
        self, prompts: Sequence[PromptRow], columns: int, cache: RowCache, *, last: bool
    ) -> Tensor:
        """Compute the prompts of a batch one after another.

        last     return only the logits of each row's last token
        Returns  [batch, columns, vocab], or [batch, 1, vocab]
        """
        rows: list[Row] = []
        logits = torch.zeros(
            (len(prompts), 1 if last else columns, self.engine.config.vocab_size),
            device=self.device,
        )
        for number, prompt in enumerate(prompts):
            # A row that occurs again, for several answers to one prompt, is computed once.
            twin = next((i for i in range(number) if prompt.same_as(prompts[i])), None)
            if twin is not None:
                rows.append(self._rows.copy(rows[twin]))
                logits[number] = prompt.placed(prompts[twin].taken(logits[twin]), logits[number])
                continue
            ids = prompt_of_ids(self.engine, prompt.ids, prompt.types, self._turn_starts(prompt))
            row, values = self._rows.begin(ids, prompt.pixels, every=not last)
            rows.append(row)
            logits[number] = prompt.placed(values, logits[number])
        used = torch.zeros((len(prompts), columns), dtype=torch.bool)
        for number, prompt in enumerate(prompts):
            used[number, prompt.columns] = True
        cache.begin(rows, used)
        return logits

    def _continue(
        self, input_ids: Tensor, attention_mask: Tensor | None, cache: RowCache
    ) -> Tensor:
        """Run new tokens after those in the cache, one decode step per column.

        Rows whose context is full get zeros while others go on: `generate` has ended them. Raises
        PromptTooLongError if the context of every row is full.
        """
        batch, columns = input_ids.shape
        if batch != len(cache.rows):
            raise UsageError(
                "The cache has {expected} rows, and input_ids has {count}.",
                expected=len(cache.rows),
                count=batch,
            )
        mask = torch.ones_like(input_ids)
        if attention_mask is not None:
            mask = attention_mask[:, -columns:]
        shape = (batch, columns, self.engine.config.vocab_size)
        logits = torch.zeros(shape, device=self.device)
        context = self.engine.plan.context
        for column in range(columns):
            present = [i for i in range(batch) if bool(mask[i, column])]
            # If no row has room, all are extended, which raises the error.
            going = [i for i in present if cache.rows[i].tokens < context] or present
            if going:
                values = self._rows.extend(
                    [cache.rows[i] for i in going], [int(input_ids[i, column]) for i in going]
                )
                for i, each in zip(going, values, strict=True):
                    logits[i, column] = each
            cache.note([i in going for i in range(batch)])
        return logits

    def _turn_starts(self, prompt: PromptRow) -> Callable[[int], bool] | None:
        """Return whether a past turn ends before an index of a prompt.

        A turn of the chat template ends in a line break, and the next begins with the template's
        first word. `ask` computes a conversation in these pieces, so the bits are the same.
        """
        if not (self.engine.folder / "tokenizer.json").is_file():
            return None
        template = self.engine.config.architecture.templates[self.engine.config.template_version]
        begin = template.past.partition("{question}")[0].encode()
        if not template.past.endswith("\n") or not begin:
            return None
        tokenizer, ids = self.engine.engine.tokenizer, prompt.ids

        def starts(index: int) -> bool:
            before = tokenizer.token_bytes(int(ids[index - 1]))
            text = b""
            for token in ids[index : index + len(begin)]:
                text += tokenizer.token_bytes(int(token))
            return before.endswith(b"\n") and text.startswith(begin)

        return starts


class _ContextFull(StoppingCriteria):
    """Ends a row when the context has no room for another token.

    mask   [batch, tokens], 0 for padding of the prompt
    cache  counts the tokens of the rows; None: the mask does
    """

    def __init__(self, context: int, mask: Tensor, cache: Any) -> None:
        self._context = context
        self._padding = (mask == 0).sum(-1)
        self._cache = cache
        self._reported = False

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        if isinstance(self._cache, RowCache) and len(self._cache.rows) == len(input_ids):
            # The newest token is not in the cache yet.
            counts = torch.tensor([row.tokens + 1 for row in self._cache.rows])
        else:
            repeats = len(input_ids) // len(self._padding)
            counts = input_ids.shape[1] - self._padding.cpu().repeat_interleave(repeats)
        full = counts >= self._context
        if bool(full.any()) and not self._reported:
            self._reported = True
            logger.warning("The context is full, so the answer ends here.")
        return full.to(input_ids.device)


def _padding_mask(input_ids: Tensor, pad: int) -> Tensor:
    """Return a mask for ids without one: padding is what precedes bos or follows all else.

    The places of a picture have the id of the padding, so the id alone does not show them.
    """
    real = input_ids != pad
    left = real.cumsum(-1) > 0
    right = real.flip(-1).cumsum(-1).flip(-1) > 0
    return (left & right).long()


def _stack(images: Sequence[Sequence[Tensor]], batch: int) -> Tensor | None:
    """Return the pictures of the released model's argument, repeated for repeated rows."""
    repeats = max(batch // max(len(images), 1), 1)
    each = [picture for row in images for _ in range(repeats) for picture in row or ()]
    return torch.stack(each) if each else None


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    targets = labels[:, 1:].to(logits.device).flatten()
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets, ignore_index=-100)


def _generation_config(folder: Path, engine: Model) -> GenerationConfig:
    """Return the folder's generation_config.json, or greedy settings with the model's ids."""
    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder)
    numbers = engine.config
    return GenerationConfig(
        bos_token_id=numbers.bos_token_id,
        eos_token_id=list(numbers.eos_token_ids),
        pad_token_id=numbers.pad_token_id,
    )
