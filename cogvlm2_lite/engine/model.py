"""The public API of a loaded model, which `cogvlm2_lite.load(...)` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.devices import Compute, choose_compute
from cogvlm2_lite.engine.answer import Answers, Request
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.options import ACTIVATIONS, LoadOptions
from cogvlm2_lite.engine.overflow import check_finite
from cogvlm2_lite.engine.prefix_cache import PictureCache
from cogvlm2_lite.engine.prefix_store import PictureStore
from cogvlm2_lite.engine.replan import (
    DEVICE_ERROR,
    MAY_BE_OUT_OF_MEMORY,
    Replanner,
    device_lost,
    out_of_memory,
)
from cogvlm2_lite.engine.runtime import Runtime, run
from cogvlm2_lite.engine.scheduler import Engine
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import Cancel, Event, Progress
from cogvlm2_lite.inputs.image import ImageSource, OpenedImage, open_image
from cogvlm2_lite.inputs.prompt import choose_vision_expert, derive_position_ids
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.arena import Arena
from cogvlm2_lite.memory.budget import (
    Allowance,
    check_context,
    cpu_budget,
    free_ram_bytes,
    gpu_budgets,
    read_allowance,
    useful_devices,
)
from cogvlm2_lite.memory.inventory import unit_sizes
from cogvlm2_lite.memory.plan import (
    DeviceBudget,
    MemoryPlan,
    Offload,
    Workload,
    plan_memory,
    plan_most_parallel,
)
from cogvlm2_lite.memory.residency import Preloaded
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.adapter import Adapter
from cogvlm2_lite.weights.adapter_choice import AdapterChoice, read_choices
from cogvlm2_lite.weights.adapter_sum import read_adapters
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.identity import identify_base
from cogvlm2_lite.weights.loader import PieceReader, WeightLoader
from cogvlm2_lite.weights.zeros import look_for_zeros

_ZERO_SAMPLE_BYTES = MIB
"""Bytes of the weights that are looked at for zeros at loading: 256 pages, 2 s on a hard disk."""


Build = Callable[
    [Compute, Sequence[DeviceBudget], Callable[[], None]],
    tuple[Runtime, Replanner, PictureStore | None],
]
"""Makes the parts of a model that depend on the number type. It calls the function when the plan is
made, before anything is allocated."""


class Model:
    """A CogVLM2 model that is ready to answer questions.

    compute   the device and number type, and why they were chosen
    remarks   sentences about the chosen devices, budgets and the files, for the user
    warnings  those of them about files that are probably not complete, and about a GPU of a
              maker whose GPUs are untested
    adapter_remarks  those of them about the adapters
    adapters  names of the loaded adapters
    adapter   name of the one that acts on the next answers, at first the first one; None: none
              does. Setting it moves no weights
    """

    remarks: tuple[Text, ...] = ()
    warnings: tuple[Text, ...] = ()
    adapter_remarks: tuple[Text, ...] = ()

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        runtime: Runtime,
        replanner: Replanner,
        compute: Compute,
        store: PictureStore | None = None,
        build: Build | None = None,
        *,
        speculation: bool = True,
    ) -> None:
        """Hold the parts of a model; `open_model` makes them.

        build        creates the parts that depend on the number type
        speculation  propose several next tokens and compute them in one pass
        """
        self.folder = folder
        self.config = config
        self.compute = compute
        self.runtime = runtime
        self.replanner = replanner
        self._store = store
        self._build = build
        self._speculation = speculation
        self._adapter = runtime.adapters.first

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the loaded adapters."""
        return self.runtime.adapters.names

    @property
    def adapter(self) -> str | None:
        """The adapter of the next answers, at first the first one; None: the base model.

        Setting it moves no weights. Raises UsageError for a name that is not loaded.
        """
        return self._adapter

    @adapter.setter
    def adapter(self, name: str | None) -> None:
        self.runtime.adapters.check(name)
        self._adapter = name

    @property
    def plan(self) -> MemoryPlan:
        """What is in memory in each phase; replaced when memory runs out."""
        return self.runtime.plan

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer. Raises CheckpointError if the folder has none."""
        return Tokenizer.from_folder(self.folder)

    @cached_property
    def engine(self) -> Engine:
        """The engine with the folder's tokenizer. Raises CheckpointError if the folder has none."""
        tokenizer = self.tokenizer
        checked = self.compute.dtype == torch.float16 and self._build is not None
        return Engine(
            self._answers(tokenizer),
            in_float32=partial(self._in_float32, tokenizer) if checked else None,
        )

    def _answers(self, tokenizer: Tokenizer) -> Answers:
        return Answers(
            self.runtime, tokenizer, self.replanner, self.pictures, speculation=self._speculation
        )

    def _in_float32(self, tokenizer: Tokenizer) -> Answers:
        """Replace the parts that depend on the number type; within the same budgets.

        Raises DoesNotFitError, and changes nothing, if there is no plan for float32.
        """
        assert self._build is not None
        old = self.runtime
        compute = replace(
            self.compute,
            dtype=torch.float32,
            reason=Text("the numbers of this model are too large for float16"),
        )

        def release() -> None:
            self.pictures.clear()
            old.residency.release()
            self.compute.backend.release_unused()

        budgets = [device.budget for device in old.plan.devices]
        self.runtime, self.replanner, self._store = self._build(compute, budgets, release)
        self.compute = compute
        del self.pictures  # it belongs to the old plan; the next use creates another
        return self._answers(tokenizer)

    @cached_property
    def pictures(self) -> PictureCache:
        """The pictures kept between questions, within the limit of the memory plan."""
        first, arena = self.plan.devices[0], self.runtime.arenas[0]
        limit, counts = self.plan.picture_cache_bytes, arena if first.budget.in_ram else None
        return PictureCache(limit, self._store, counts)

    def answer(
        self,
        question: str,
        image: ImageSource | None = None,
        history: Sequence[tuple[str, str]] = (),
        *,
        sampling: Sampling | None = None,
        template: str | None = None,
        cancel: Cancel | None = None,
        upright: bool = True,
        page: int | None = None,
        continue_from: str = "",
        continue_ids: Sequence[int] = (),
        draft_text: str = "",
    ) -> Iterator[Event]:
        """Answer a question; yields events (see cogvlm2_lite.events), Finished as the last one.

        image     a path, the bytes of a picture file, a PIL image or an OpenedImage; one picture
                  per conversation
        history   earlier (question, answer) pairs of the conversation, oldest first
        sampling  greedy by default
        template  "chat", "vqa" (short answers) or "base"; None: the checkpoint's own
        cancel    set it from any thread to stop within one token
        upright   rotate photographs by their EXIF tag
        page      the page or frame of a picture file, from 1; None: the one that open_image chooses
        continue_from  the text of an answer to continue, for example after a cancel
        continue_ids   its tokens (Finished.token_ids). With them and greedy sampling the result is
                       what it would have been without the break. If they are missing or belong to
                       another tokenizer, continue_from is tokenized again
        draft_text  a text that the answer probably resembles, such as OCR text of the picture. It
                  changes the speed only, never the answer

        The event PictureOpened has what a person should know of how the picture was read, such as
        "page 1 of 3" or converted colors; an OpenedImage has the same in `notices`.

        Raises ImageError, PromptTooLongError, UsageError, CheckpointError. The picture is opened
        immediately; everything else starts when the first event is requested.
        """
        request = Request(
            question=question,
            image=None if image is None else self._open(image, upright, page),
            history=tuple(history),
            sampling=sampling or Sampling(),
            template=template,
            continue_from=continue_from,
            continue_ids=tuple(continue_ids),
            adapter=self.adapter,
            draft_text=draft_text,
        )
        return self.engine.answer(request, cancel or Cancel())

    def _open(self, image: ImageSource, upright: bool, page: int | None) -> OpenedImage:
        if isinstance(image, list | tuple):
            raise UsageError(
                "Too many pictures for one conversation: {count}; the model takes {most}.",
                hint="Ask about each picture in a separate conversation, or combine them into one.",
                count=len(image),
                most=self.config.architecture.pictures_per_conversation,
            )
        return open_image(image, upright=upright, page=page)

    def warm_up(self) -> Iterator[Progress]:
        """Load the weights that every token needs, before the first question; yields progress.

        Calling it is optional. Without it the first answer waits for the disk and, on a CPU with
        AVX512-BF16, for the copies in the layout of its kernel. Running out of memory here is not
        an error: the first answer replans. Raises DeviceError when the GPU is lost, and
        CheckpointError if the folder has no tokenizer.
        """
        for step in self.preload():
            held = self.runtime.held_bytes
            yield Progress(phase="load", done=step.units, total=step.total_units, held_bytes=held)

    def preload(self) -> Iterator[Preloaded]:
        """Do the same as `warm_up`, but yield how many bytes are loaded."""
        self.runtime.residency.read_ahead()
        _ = self.engine  # reads the tokenizer, before minutes of loading
        try:
            yield from self.runtime.residency.preload()
        except MAY_BE_OUT_OF_MEMORY as error:
            if isinstance(error, DEVICE_ERROR) and not out_of_memory(error):
                raise device_lost(error) from error
            if not out_of_memory(error):
                raise

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Encode preprocessed pictures.

        `open_image` and `pixel_values` of cogvlm2_lite.inputs.image preprocess a picture file; the
        `notices` of the opened image are sentences about how it was read.

        pixel_values  [batch, 3, image_size, image_size], normalised
        Returns       [batch, image tokens with boi and eoi, hidden], compute dtype
        """
        vision = self.config.vision
        expected = (vision.in_channels, vision.image_size, vision.image_size)
        if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise UsageError(
                "pixel_values must have the shape [batch, {expected}], not {shape}.",
                expected=", ".join(map(str, expected)),
                shape=list(pixel_values.shape),
            )
        self.spare_slots()
        features = run(self.runtime.encode(pixel_values, Cancel(), self.adapter))
        check_finite(features, self.runtime.dtype)
        return features

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        image_features: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the logits at every position of a prompt; no cache is kept.

        input_ids       [batch, tokens] int64
        token_type_ids  [batch, tokens], 0 language, 1 image; None: all language
        position_ids    [batch, tokens]; None: derived from the types as the released model does
        image_features  [images, image tokens, hidden] from encode_image, for all image tokens in
                        order; several pictures may also be concatenated along the tokens
        attention_mask  [batch, tokens], 0 for padding; None: no padding
        Returns         [batch, tokens, vocab] float32

        Raises UsageError when shapes do not agree.
        """
        chunk = self._chunk(input_ids, token_type_ids, position_ids, attention_mask)
        places = int(chunk.image_mask.sum())
        given = 0 if image_features is None else image_features.shape[:-1].numel()
        if places != given:
            raise UsageError(
                "The prompt has places for {expected} image tokens, not for {count}.",
                expected=places,
                count=given,
            )
        self.spare_slots()
        cache = self.runtime.new_cache(input_ids.shape[0])
        try:
            work = self.runtime.prefill(chunk, image_features, cache, Cancel(), self.adapter)
            hidden = run(work)
        finally:
            cache.release()
        check_finite(hidden, self.runtime.dtype)
        return self.runtime.compute_logits(hidden)

    def spare_slots(self) -> None:
        """Free the cache buffers that idle conversations keep on a GPU.

        The plan has room for them, or for as many others. Nothing is freed while an answer is in
        progress.
        """
        if "engine" not in self.__dict__ or self.engine.busy:
            return
        for slot in self.engine.slots:
            if slot.cache.fixed and slot.cache.nbytes:
                slot.clear()
                self.runtime.free_cache(slot.cache)

    def _chunk(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        attention_mask: Tensor | None,
    ) -> Chunk:
        if input_ids.dim() != 2 or not input_ids.numel():
            raise UsageError(
                "input_ids must have the shape [batch, tokens], not {shape}.",
                shape=list(input_ids.shape),
            )
        for name, value in (
            ("token_type_ids", token_type_ids),
            ("position_ids", position_ids),
            ("attention_mask", attention_mask),
        ):
            if value is not None and value.shape != input_ids.shape:
                raise UsageError(
                    "{name} must have the shape of input_ids, {expected}, not {shape}.",
                    name=name,
                    expected=list(input_ids.shape),
                    shape=list(value.shape),
                )
        vocab = self.config.vocab_size
        if int(input_ids.min()) < 0 or int(input_ids.max()) >= vocab:
            raise UsageError("input_ids must be between 0 and {most}.", most=vocab - 1)
        types = np.zeros(input_ids.shape, dtype=np.int64)
        if token_type_ids is not None:
            types = token_type_ids.cpu().numpy().astype(np.int64)
        mask = None if attention_mask is None else attention_mask.cpu().numpy().astype(np.int64)
        if position_ids is None:
            position_ids = torch.from_numpy(derive_position_ids(types, mask))
        padded = mask is not None and not mask.all()
        return Chunk(
            input_ids=input_ids.cpu(),
            image_mask=torch.from_numpy(types == 1),
            vision_mask=torch.from_numpy(choose_vision_expert(types)),
            position_ids=position_ids.to(torch.int64),
            highest=int(position_ids.max()),
            has_image=bool((types == 1).any()),
            key_mask=torch.from_numpy(mask != 0) if padded else None,
        )


def load(
    path: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    rope: str = "reference",
    *,
    vram: str | int | None = None,
    ram: str | int | None = None,
    offload: str = "auto",
    context: int | None = None,
    kv: str = "full",
    activations: str = "auto",
    parallel: int = 1,
    pictures: tuple[Path, int] | None = None,
    adapter: str | Path | None = None,
    adapters: Sequence[str] = (),
    any_base: bool = False,
    speculation: bool = True,
) -> Model:
    """Open a model folder, as released or made by `quantize`.

    path     the folder with config.json and .safetensors files; "demo": the small included model
    device   "auto", "cpu", "cuda" (several GPUs if one is not enough) or "cuda:1"; "xpu" is for
             Intel's GPUs, "mps" for Apple's
    dtype    "auto", "float32", "bfloat16" or "float16"
    rope     "reference", the released model's rounded positions, or "exact", in float32
    vram     video memory that may be used: bytes, "8GiB", "8GiB,12GiB"; None or "auto": what is
             free now
    ram      RAM that may be used, in the same form
    offload  "auto" streams weights that do not fit; "never" raises DoesNotFitError instead
    context  tokens of the key/value cache; None: the model's maximum
    kv       "full" stores keys and values in the compute type; "int8" in about half the bytes,
             "int4" in little more than a quarter
    activations  "int8" computes pictures faster and less exactly, on a CPU: inputs of the vision
             tower, the projector and the vision experts have 8 bits. "auto": they keep theirs
    parallel conversations that `Model.engine` may answer at once; fewer if memory is short, see
             Model.plan. `Model.answer` needs one
    pictures folder and maximum bytes of the picture cache on disk; None: no cache on disk
    adapter  folder of a LoRA adapter, as peft writes it; None: no adapter
    adapters further ones, each as --adapter takes it: [NAME=]FOLDER[:WEIGHT]. `Model.adapter`
             chooses the one that answers, at first the first one
    any_base accept adapters that were trained on another model of the same shape
    speculation  compute several likely tokens of an answer in one pass; it changes no answer

    Only headers are read here; each weight is read when it is first needed. Raises CheckpointError
    for a damaged or unknown folder, DoesNotFitError if there is not enough memory, DeviceError if
    a device can't be used, AdapterError if the adapter is damaged, not supported or made for
    another model, and UsageError for an invalid argument.
    """
    return load_with(
        LoadOptions(
            folder=model_folder(str(path)),
            device=device,
            dtype=dtype,
            rope=rope,
            vram=vram,
            ram=ram,
            offload=offload,
            context=context,
            kv=kv,
            activations=activations,
            parallel=parallel,
            pictures=pictures,
            adapters=_choices(adapter, adapters),
            any_base=any_base,
            speculation=speculation,
        )
    )


def _choices(adapter: str | Path | None, adapters: Sequence[str]) -> tuple[AdapterChoice, ...]:
    further = read_choices(adapters, add_up=False)
    if adapter is None:
        return further
    folder = Path(adapter)
    return (AdapterChoice(name=folder.resolve().name, folder=folder), *further)


def load_with(options: LoadOptions) -> Model:
    """Open a model folder; the same as `load`, with the arguments as one value."""
    folder, parallel = options.folder, options.parallel
    _check_word("rope", options.rope, [mode.value for mode in RopeMode])
    _check_word("offload", options.offload, [kind.value for kind in Offload])
    _check_word("kv", options.kv, [kind.value for kind in KVKind])
    _check_word("activations", options.activations, ACTIVATIONS)
    kv = KVKind(options.kv)
    allowance = read_allowance(options.vram, options.ram)
    config = read_config(folder)
    tokens = check_context(config, options.context)
    if parallel < 1:
        raise UsageError(
            "{param} must be 1 or more, not {value}.", param="parallel", value=parallel
        )
    compute = choose_compute(options.device, options.dtype)
    catalog = Catalog.open(folder, config)
    adapters: tuple[Adapter, ...] = ()
    if options.adapters:
        base = identify_base(catalog, folder)
        adapters = read_adapters(options.adapters, config, base=base, any_base=options.any_base)
    try:
        model = open_model(
            folder,
            compute=compute,
            budgets=_budgets(catalog, compute, allowance, tokens, kv, parallel),
            rope=RopeMode(options.rope),
            context=tokens,
            offload=Offload(options.offload),
            kv=kv,
            coarse_pictures=options.activations == "int8",
            parallel=parallel,
            pictures=options.pictures,
            weights=(catalog, None),
            adapters=adapters,
            speculation=options.speculation,
        )
    except DEVICE_ERROR as error:
        raise device_lost(error) from error
    found = look_for_zeros(catalog, most_bytes=_ZERO_SAMPLE_BYTES)
    warnings = [zeros.warning for zeros in islice(found, 1)]
    if options.activations == "int8" and all(t.kind == "dense" for t in catalog.tensors.values()):
        warnings.append(Text("--activations int8 has no effect: the model is not quantized."))
    used = {device.budget.device for device in model.plan.devices}
    for gpu in compute.gpus:
        warnings += compute.backend.cautions(gpu) if gpu.device in used else ()
    model.warnings = tuple(warnings)
    model.adapter_remarks = tuple(remark for adapter in adapters for remark in adapter.remarks)
    model.remarks = (*model.warnings, *_remarks(model, allowance), *model.adapter_remarks)
    return model


def _check_word(param: str, word: str, words: Sequence[str]) -> None:
    if word not in words:
        raise UsageError(
            "Unknown value {value!r} for {param}.",
            hint="Use one of {names}.",
            param=param,
            value=word,
            names=", ".join(words),
        )


def _budgets(
    catalog: Catalog,
    compute: Compute,
    allowance: Allowance,
    context: int,
    kv: KVKind,
    parallel: int,
) -> Sequence[DeviceBudget]:
    """Return the budgets of the devices to use; of several GPUs only the useful ones."""
    if not compute.gpus:
        return [cpu_budget(allowance, free_ram_bytes())]
    budgets = gpu_budgets(compute.gpus, allowance, free_ram_bytes())
    if len(budgets) == 1:
        return budgets
    itemsize = compute.dtype.itemsize
    sizes = unit_sizes(catalog, itemsize=itemsize, packed=False, on_gpu=True)
    workload = Workload(context=context, itemsize=itemsize, kv=kv, parallel=parallel)
    return useful_devices(catalog.config, sizes, budgets, workload)


def _remarks(model: Model, allowance: Allowance) -> Iterator[Text]:
    """Yield sentences about the chosen devices and budgets, for the user."""
    compute = model.compute
    if compute.trouble and compute.gpus:
        yield Text("Not every GPU is used: {why}.", why=compute.trouble)
    elif compute.trouble:
        yield Text("No GPU is used: {why}.", why=compute.trouble)
    if allowance.vram is not None and not compute.gpus:
        yield Text("--vram has no effect: the model runs on the CPU, in RAM.")
    yield from (d.budget.remark for d in model.plan.devices if d.budget.remark)
    if model.plan.remark:
        yield model.plan.remark


def open_model(
    folder: Path,
    *,
    compute: Compute,
    budgets: Sequence[DeviceBudget],
    rope: RopeMode = RopeMode.REFERENCE,
    context: int | None = None,
    offload: Offload = Offload.AUTO,
    kv: KVKind = KVKind.FULL,
    coarse_pictures: bool = False,
    parallel: int = 1,
    pictures: tuple[Path, int] | None = None,
    arenas: Sequence[Arena] | None = None,
    weights: tuple[Catalog, PieceReader | None] | None = None,
    adapters: Sequence[Adapter] = (),
    speculation: bool = True,
) -> Model:
    """Open a model folder within given budgets. Most callers want `load`, which decides them.

    budgets  one per device. Several on the CPU simulate several devices, each with its own arena,
             so that their accounting can be tested without a GPU.
    context  tokens of the key/value cache; None: the model's maximum
    kv       how keys and values are stored
    coarse_pictures  as for Runtime; raises UsageError where no kernel multiplies inputs of 8 bits
    parallel conversations at once; fewer if memory is short
    pictures folder and maximum bytes of the picture cache on disk; None: no cache on disk
    arenas   as for Runtime
    weights  a catalog of the folder that is already open, and a reader of its bytes other than its
             files (`bench`) or None
    adapters at most one of them acts on an answer
    speculation  propose several next tokens and compute them in one pass
    """
    catalog, reader = weights or (Catalog.open(folder, read_config(folder)), None)
    config = catalog.config
    low_rank: dict[str, list[int]] = {}
    for adapter in adapters:
        for name, pair in adapter.pairs.items():
            low_rank.setdefault(name, []).extend((pair.down.numel(), pair.up.numel()))

    def build(
        compute: Compute, budgets: Sequence[DeviceBudget], on_planned: Callable[[], None]
    ) -> tuple[Runtime, Replanner, PictureStore | None]:
        devices = [backend_of(b.device).torch_device(b.device) for b in budgets]
        loaders = [
            WeightLoader(catalog, device=d, dtype=compute.dtype, reader=reader, adapters=adapters)
            for d in devices
        ]
        if coarse_pictures and not all(loader.kernels.multiplies_bytes for loader in loaders):
            raise UsageError(
                "Activations of 8 bits need a CPU and this program's C kernels.",
                hint="Leave out --activations, or use --device cpu. `cogvlm2-lite doctor` shows "
                "the kernels.",
            )
        itemsize = compute.dtype.itemsize
        sizes = unit_sizes(
            catalog,
            itemsize=itemsize,
            packed=loaders[0].packs,
            on_gpu=loaders[0].on_gpu,
            low_rank=low_rank,
        )
        workload = Workload(
            context=context or config.max_position_embeddings,
            itemsize=itemsize,
            kv=kv,
        )

        def plan_for(parallel: int) -> MemoryPlan:
            wanted = replace(workload, parallel=parallel)
            return plan_memory(config, sizes, budgets, wanted, offload=offload)

        plan = plan_most_parallel(plan_for, parallel)
        on_planned()
        runtime = Runtime(
            config,
            loaders,
            plan,
            devices=devices,
            dtype=compute.dtype,
            rope=rope,
            kv=kv,
            coarse_pictures=coarse_pictures,
            arenas=arenas,
            adapters=adapters,
        )
        store = None
        if pictures is not None:
            name = loaders[0].kernels.name
            numbers = (compute.dtype, rope.value, kv.value, budgets[0].device, name)
            identity = f"{catalog.fingerprint()} {numbers} {runtime.parts.full_attention.name}"
            if coarse_pictures:
                identity += " activations of 8 bits"
            store = PictureStore(pictures[0], identity, pictures[1])
        return runtime, Replanner(runtime, sizes, replace(workload, parallel=plan.parallel)), store

    runtime, replanner, store = build(compute, budgets, lambda: None)
    return Model(folder, config, runtime, replanner, compute, store, build, speculation=speculation)
