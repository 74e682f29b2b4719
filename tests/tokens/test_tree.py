"""Rows as paths through a tree: every row is found again, and nothing worth sharing is there twice."""

import random

import pytest

from heed.tokens import tree
from heed.tokens.tree import Tree, shared


def ids(laid: Tree, rows: list[list[int]], row: int) -> list[int]:
    parts = [laid.segments[number] for number in laid.paths[row]]
    return [token for part in parts for token in rows[part.row][part.begin : part.end]]


def test_rows_that_share_nothing_stay_as_they_were_given() -> None:
    laid = shared([[9, 1], [1, 2], [5]])
    assert [(part.row, part.begin, part.end, part.parent) for part in laid.segments] == [
        (0, 0, 2, None),
        (1, 0, 2, None),
        (2, 0, 1, None),
    ]


def test_two_preambles_and_answers_to_one_question_are_shared_where_they_begin_alike() -> None:
    short, long = [*range(1, 9), *range(20, 36)], [*range(1, 9), *range(40, 65)]
    rows = [[*short, 101, 0], [*long, 102, 0], [*short, 103, 0], [*long, 104, *range(70, 78), 1, 0]]
    rows.append([*rows[3][:-2], 2, 0])
    laid = shared(rows)
    assert [(part.begin, part.end, part.parent) for part in laid.segments] == [
        (0, 8, None),
        (8, 24, 0),
        (24, 26, 1),
        (24, 26, 1),
        (8, 33, 0),
        (33, 35, 4),
        (33, 42, 4),
        (42, 44, 6),
        (42, 44, 6),
    ]
    assert [ids(laid, rows, number) for number in range(5)] == rows
    assert laid.path(7) == [0, 4, 6, 7]


def test_too_little_is_not_shared_but_what_is_deeper_is() -> None:
    rows = [[1, 2], [1, 3, 4, 5, 6, 7, 8, 9, 10, 11], [1, 3, 4, 5, 6, 7, 8, 9, 10, 12]]
    laid = shared(rows)  # one token saved twice is not worth a segment; nine are
    assert [(part.begin, part.end, part.parent) for part in laid.segments] == [
        (0, 2, None),
        (0, 9, None),
        (9, 10, 1),
        (9, 10, 1),
    ]


@pytest.mark.parametrize("least", [1, 4])
def test_any_rows_are_found_again_and_share_all_that_pays(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "LEAST", least)
    generator = random.Random(0)
    for _ in range(200):
        rows = [[generator.randint(1, 2) for _ in range(generator.randint(1, 9))] for _ in range(7)]
        laid = shared(rows)
        assert [ids(laid, rows, number) for number in range(7)] == rows
        for number, part in enumerate(laid.segments):
            assert part.parent is None or (part.parent < number and laid.segments[part.parent].end == part.begin)
        distinct = {tuple(row[:length]) for row in rows for length in range(1, len(row) + 1)}
        laid_down = sum(map(len, laid.segments))
        assert laid_down == len(distinct) if least == 1 else laid_down <= sum(map(len, rows))


def test_rows_that_are_nested_a_thousand_deep_become_a_tree() -> None:
    laid = shared([list(range(length * 10)) for length in range(1, 1500)])
    assert len(laid.segments) == 1499 and sum(map(len, laid.segments)) == 14990
