"""Keys and values of rows that come and go, in buffers with room: what stays where it is is not copied."""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns, at least


class Rows(DynamicLayer):
    """A layer's keys and values, each (rows, heads, columns, head size).

    transformers' own layer copies all of them for each column that is added.
    """

    keys: Any
    values: Any
    rows = columns = 0
    """In use; the buffers have more."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add columns to every row; gives all columns of all rows."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.columns
        self._reserve(len(key_states), before + key_states.shape[2])
        keys, values = self.in_use()
        keys[:, :, before:], values[:, :, before:] = key_states, value_states
        return keys, values

    def in_use(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys[: self.rows, :, : self.columns], self.values[: self.rows, :, : self.columns]

    def get_seq_length(self) -> int:
        return self.columns

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Only these rows stay, in this order; one that keeps its place is not copied."""
        self.rows = len(indices)
        for place, row in enumerate(indices.tolist()):
            if place != row:
                self.keys[place], self.values[place] = self.keys[row], self.values[row]

    def join(self, others: "Rows", common: int) -> None:
        """Rows of another layer come after these. All begin with `common` columns, and end in the same column."""
        self.move(common, max(0, others.columns - self.columns))
        before, own = self.rows, others.columns - common
        self._reserve(before + others.rows, self.columns)
        for ours, theirs in zip(self.in_use(), others.in_use(), strict=True):
            ours[before:, :, :common] = theirs[:, :, :common]
            ours[before:, :, self.columns - own :] = theirs[:, :, common:]

    def move(self, first: int, by: int) -> None:
        """Columns from the `first` on move right, or left over others. What is between then must be masked."""
        if not by:
            return
        own = [each[:, :, first:].clone() for each in self.in_use()]
        self._reserve(self.rows, self.columns + by)
        for each, moved in zip(self.in_use(), own, strict=True):
            each[:, :, first + by :] = moved

    def _reserve(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        missing_rows = max(0, rows - self.keys.shape[0])
        missing = columns - self.keys.shape[2]
        room = missing + max(ROOM, columns // 4) if missing > 0 else 0
        if missing_rows or room:
            # Zeros, since masked values still count if they are not a number.
            more = (0, 0, 0, room, 0, 0, 0, missing_rows)
            self.keys, self.values = (torch.nn.functional.pad(each, more) for each in (self.keys, self.values))
