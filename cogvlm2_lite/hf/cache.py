"""The cache object that `generate` passes from step to step."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from cogvlm2_lite.engine.token_rows import Row, TokenRows


class RowCache(Cache):
    """The rows of a batch, in the engine's own key/value caches.

    rows  empty before the first forward pass
    """

    def __init__(self, engine: TokenRows) -> None:
        super().__init__(layers=[])
        self._engine = engine
        self.rows: list[Row] = []
        # [rows, columns]: which columns of input_ids are in the rows' caches; others are padding.
        self._used = torch.zeros((0, 0), dtype=torch.bool)

    def begin(self, rows: list[Row], used: Tensor) -> None:
        """Hold the rows of a prompt.

        used  [rows, columns] bool, False for padding
        """
        self.rows, self._used = rows, used

    def note(self, used: list[bool]) -> None:
        """Count one more column. used: for each row, whether its token is in the row's cache."""
        self._used = torch.cat((self._used, torch.tensor(used)[:, None]), dim=1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the computed columns, padding included."""
        return int(self._used.shape[1])

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return -1: the engine's plan limits the length."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Discard the newest columns of text, as assisted generation does with rejected tokens.

        tokens_to_remove  their number; transformers passes it as a negative one
        """
        kept = self._used.shape[1] - abs(tokens_to_remove)
        counts = self._used[:, kept:].sum(-1).tolist()
        self._used = self._used[:, :kept]
        for row, count in zip(self.rows, counts, strict=True):
            row.cache.truncate(row.tokens - count)
            row.position -= count

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Choose a row for each beam; a row that is chosen again is copied."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows at these indices, in this order."""
        chosen: list[Row] = []
        for index in indices.tolist():
            row = self.rows[index]
            chosen.append(self._engine.copy(row) if row in chosen else row)
        self.rows, self._used = chosen, self._used[indices.cpu()]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self.batch_select_indices(torch.arange(len(self.rows)).repeat_interleave(repeats))

    def reset(self) -> None:
        """Discard all rows."""
        self.begin([], torch.zeros((0, 0), dtype=torch.bool))

    @property
    def batch_size(self) -> int:
        return len(self.rows)

    @property
    def is_linear(self) -> list[bool]:
        return [False]

    @property
    def is_sliding(self) -> list[bool]:
        return [False]
