import torch
from transformers.cache_utils import DynamicLayer

from heed.answers.rows import Rows


def columns(rows: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 2, count, 4), torch.randn(rows, 2, count, 4)


def test_rows_with_room_hold_what_transformers_layer_holds() -> None:
    """Past the room of 64 columns, and after a row has left."""
    ours, theirs = Rows(), DynamicLayer()
    for count in (30, *[1] * 80):
        more = columns(3, count)
        for mine, other in zip(ours.update(*more), theirs.update(*more), strict=True):
            assert torch.equal(mine, other)
    for layer in (ours, theirs):
        layer.batch_select_indices(torch.tensor([2, 1]))
    more = columns(2, 1)
    for mine, other in zip(ours.update(*more), theirs.update(*more), strict=True):
        assert torch.equal(mine, other)
    assert ours.get_seq_length() == 111 and ours.get_mask_sizes(1) == (112, 0)


def test_a_column_is_added_and_a_row_leaves_in_place() -> None:
    layer = Rows()
    layer.update(*columns(3, 5))
    buffer = layer.keys
    layer.update(*columns(3, 1))
    layer.batch_select_indices(torch.tensor([0, 2]))
    assert layer.keys is buffer and buffer.shape == (3, 2, 69, 4)


def test_rows_that_join_begin_alike_and_end_in_the_same_column() -> None:
    """Two common columns; the wider rows push the others' own part to the right, and it comes back."""
    layer, wider = Rows(), Rows()
    (keys, values), (more, _) = columns(1, 3), columns(2, 6)
    layer.update(keys, values)
    wider.update(more, more)
    layer.join(wider, 2)
    joined, _ = layer.in_use()
    assert joined.shape == (3, 2, 6, 4)
    assert torch.equal(joined[:1, :, [0, 1, 5]], keys) and torch.equal(joined[1:], more)
    layer.batch_select_indices(torch.tensor([0]))
    layer.move(5, -3)
    assert torch.equal(layer.in_use()[0], keys) and torch.equal(layer.in_use()[1], values)
