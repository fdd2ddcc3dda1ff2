"""Packs: the rows of several samples that go through the decoder together.

Samples about one picture form a talk: the prefix [bos, picture] once, then what follows it in each
sample. A row sees its prefix and the rows before it in its own sample, and positions continue
after the prefix in each of them, so losses and gradients are those of separate sequences.

A pack has one or more talks, and samples without a picture. All projections work on its rows
together, so a matrix is dequantized once for all of them; attention works span by span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cogvlm2_lite.engine.adapters import behind_picture
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.finetune.samples import TrainingPicture, TrainingSample
from cogvlm2_lite.inputs.prompt import choose_vision_expert, derive_position_ids
from cogvlm2_lite.memory.training import PACK_ROWS, SPAN_ROWS, TALK_ROWS


@dataclass(frozen=True, kw_only=True)
class PackLimits:
    """The size of packs.

    talk  rows of a talk, its prefix included; a longer one is split, and computes its prefix again
    pack  rows of several talks that share a pack
    """

    talk: int = TALK_ROWS
    pack: int = PACK_ROWS


@dataclass(frozen=True, kw_only=True)
class Span:
    """Rows of a pack that attend together.

    start, end  rows in the pack
    lengths     rows of each of its sequences, which do not see each other
    inside      rows of the pack that precede each sequence, as a prefix; None: no such rows
    stored      key of a prefix whose keys and values are stored; None: none
    """

    start: int
    lengths: tuple[int, ...]
    inside: tuple[int, int] | None = None
    stored: str | None = None

    @property
    def end(self) -> int:
        return self.start + sum(self.lengths)

    @property
    def follows(self) -> bool:
        """Whether its sequences follow a prefix."""
        return self.inside is not None or self.stored is not None

    def mask(self, before: int) -> Tensor:
        """Return which keys each row sees, [1, 1, rows, before + rows] bool.

        before  tokens of the prefix
        """
        number = torch.repeat_interleave(torch.tensor(self.lengths))
        rows = torch.arange(len(number))
        own = (number[:, None] == number) & (rows <= rows[:, None])
        return torch.cat((own.new_ones(len(number), before), own), dim=1)[None, None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """Where a pack has the label positions of a sample.

    sample  number of the sample in its step
    rows    [n] int64, rows of the pack
    labels  [n] int64, the tokens that follow
    """

    sample: int
    rows: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Pack:
    """Rows that go through the decoder together.

    chunk     token ids, experts and positions of all rows
    spans     in the order of the rows, which they cover
    pictures  whose features the rows have, in their order
    behind    [1, rows] bool, rows behind the picture of their sample
    targets   label positions; none: only keys and values are wanted
    """

    chunk: Chunk
    spans: tuple[Span, ...]
    pictures: tuple[TrainingPicture, ...]
    behind: Tensor
    targets: tuple[Target, ...]

    @property
    def rows(self) -> int:
        return self.chunk.tokens

    @property
    def wanted(self) -> Tensor | None:
        """Rows whose output of the last block is wanted, ascending; None: all rows."""
        rows = torch.tensor(
            sorted({row for t in self.targets for row in t.rows.tolist()}), dtype=torch.int64
        )
        # A row that only an image token wants is no ordinary data, and not worth a code path.
        return None if bool(self.chunk.vision_mask[0, rows].any()) else rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """Bos and a picture, as stored for an adapter that acts behind it.

    key     is equal for equal token ids and pictures
    pack    what is computed of it
    """

    key: str
    pack: Pack


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tokens:
    """A whole sample with its experts and positions, [1, tokens] each; `end` of the prefix."""

    number: int
    sample: TrainingSample
    vision: Tensor
    positions: Tensor
    behind: Tensor
    end: int

    @staticmethod
    def of(number: int, sample: TrainingSample) -> _Tokens:
        types = sample.token_type_ids.numpy()
        whole = _chunk(
            sample.input_ids,
            sample.token_type_ids == 1,
            torch.from_numpy(choose_vision_expert(types)),
            torch.from_numpy(derive_position_ids(types)),
        )
        pictured = sample.token_type_ids[0].nonzero()
        return _Tokens(
            number=number,
            sample=sample,
            vision=whole.vision_mask,
            positions=whole.position_ids,
            behind=behind_picture(whole),
            end=int(pictured.max()) + 1 if len(pictured) else 0,
        )

    @property
    def prefix_key(self) -> str:
        """Equal for samples that begin with the same tokens and the same picture."""
        assert self.sample.picture is not None
        begin = torch.stack((self.sample.input_ids, self.sample.token_type_ids))[..., : self.end]
        digest = hashlib.sha256(begin.contiguous().numpy().tobytes()).hexdigest()
        return f"{self.sample.picture.key} {digest}"

    @property
    def tokens(self) -> int:
        return self.sample.input_ids.shape[1]


@dataclass(kw_only=True)
class _Builder:
    """A pack in the making."""

    parts: list[tuple[_Tokens, int, int]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    pictures: list[TrainingPicture] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    rows: int = 0

    def add_prefix(self, first: _Tokens) -> tuple[int, int]:
        """Add a prefix; return its rows."""
        assert first.sample.picture is not None
        self.spans.append(Span(start=self.rows, lengths=(first.end,)))
        self.pictures.append(first.sample.picture)
        self._add(first, 0, first.end)
        return self.rows - first.end, self.rows

    def add_ends(
        self, ends: Sequence[_Tokens], inside: tuple[int, int] | None, stored: str | None
    ) -> None:
        """Add what follows a prefix in each sample; their labels may be in the prefix."""
        spans: list[list[int]] = [[]]
        start = self.rows
        for each in ends:
            begin = each.end if inside or stored else 0
            before = 0 if inside is None else inside[0]
            self._add_targets(each, begin, before)
            length = each.tokens - begin
            if spans[-1] and (sum(spans[-1]) + length > SPAN_ROWS or not (inside or stored)):
                spans.append([])
            if length:
                spans[-1].append(length)
                self._add(each, begin, each.tokens)
        for lengths in filter(None, spans):
            span = Span(start=start, lengths=tuple(lengths), inside=inside, stored=stored)
            self.spans.append(span)
            start = span.end

    def _add(self, each: _Tokens, begin: int, end: int) -> None:
        self.parts.append((each, begin, end))
        self.rows += end - begin

    def _add_targets(self, each: _Tokens, begin: int, before: int) -> None:
        places = each.sample.label_positions
        own = places - begin + self.rows
        self.targets.append(
            Target(
                sample=each.number,
                rows=torch.where(places < begin, places + before, own),
                labels=each.sample.labels[0, places + 1],
            )
        )

    def pack(self) -> Pack:
        def joined(values: Sequence[Tensor]) -> Tensor:
            cut = (v[:, a:b] for v, (_, a, b) in zip(values, self.parts, strict=True))
            return torch.cat(list(cut), dim=1)

        owners = [each for each, _, _ in self.parts]
        return Pack(
            chunk=_chunk(
                joined([each.sample.input_ids for each in owners]),
                joined([each.sample.token_type_ids for each in owners]) == 1,
                joined([each.vision for each in owners]),
                joined([each.positions for each in owners]),
            ),
            spans=tuple(self.spans),
            pictures=tuple(self.pictures),
            behind=joined([each.behind for each in owners]),
            targets=tuple(self.targets),
        )


def make_packs(
    samples: Sequence[TrainingSample], *, limits: PackLimits, stored: bool
) -> tuple[list[Pack], dict[str, Prefix]]:
    """Return the packs of a step, and the prefixes whose keys and values they need.

    stored  prefixes are stored: the adapter does not change them

    Samples without labels have no part in any pack. The packs depend on nothing but the samples, so
    the same step is always computed in the same order.
    """
    prefixes: dict[str, Prefix] = {}
    packs: list[_Builder] = [_Builder()]
    for ends, key in _talks([_Tokens.of(n, s) for n, s in enumerate(samples)], stored=stored):
        first = ends[0]
        if key is not None:
            prefixes[key] = Prefix(key=key, pack=_prefix_pack(first))
        shared = 0 if key is not None else first.end
        for group in _groups(ends, shared, limits.talk):
            rows = shared + sum(each.tokens - first.end for each in group)
            if packs[-1].rows and packs[-1].rows + rows > limits.pack:
                packs.append(_Builder())
            inside = packs[-1].add_prefix(first) if shared else None
            packs[-1].add_ends(group, inside, key)
    return [each.pack() for each in packs if each.rows], prefixes


def _talks(
    samples: Sequence[_Tokens], *, stored: bool
) -> Iterator[tuple[list[_Tokens], str | None]]:
    """Yield samples with a common prefix, and the key of the prefix if it is stored.

    A sample that is trained to continue its picture, or any token before the picture's end, needs
    its prefix in the pack.
    """
    talks: dict[tuple[str | int, bool], list[_Tokens]] = {}
    for each in samples:
        places = each.sample.label_positions
        if not len(places):
            continue
        if each.sample.picture is None:
            talks[each.number, False] = [each]
        else:
            is_stored = stored and int(places.min()) >= each.end
            talks.setdefault((each.prefix_key, is_stored), []).append(each)
    for (key, is_stored), ends in talks.items():
        yield ends, str(key) if is_stored else None


def _groups(ends: Sequence[_Tokens], shared: int, most: int) -> Iterator[list[_Tokens]]:
    """Yield parts of a talk that have at most `most` rows, the prefix included."""
    group: list[_Tokens] = []
    rows = shared
    for each in ends:
        own = each.tokens - each.end
        if group and rows + own > most:
            yield group
            group, rows = [], shared
        group.append(each)
        rows += own
    yield group


def _prefix_pack(first: _Tokens) -> Pack:
    builder = _Builder()
    builder.add_prefix(first)
    return builder.pack()


def _chunk(ids: Tensor, image: Tensor, vision: Tensor, positions: Tensor) -> Chunk:
    return Chunk(
        input_ids=ids,
        image_mask=image,
        vision_mask=vision,
        position_ids=positions,
        highest=int(positions.max()),
        has_image=bool(image.any()),
    )
