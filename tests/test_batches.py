from heed.batches import PaddingCollator

E = 50256


def test_padding_learns_the_first_eos_and_no_later_one() -> None:
    rows = [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
    examples = [{"prompt_ids": row[:1], "response_ids": [*row[1:], E]} for row in rows]
    batch = PaddingCollator(pad_token_id=E, loss_on="all")(examples)
    inputs, targets = batch["input_ids"][:, :-1], batch["labels"][:, 1:]  # the causal shift
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, E, E, E], [7, 8, 9, E, E]]
    assert targets.tolist() == [[1, 2, 3, 4, E], [6, E, -100, -100, -100], [8, 9, E, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]


def test_the_prompt_is_not_learned_under_loss_on_response() -> None:
    batch = PaddingCollator(pad_token_id=E, loss_on="response")(
        [{"prompt_ids": [1, 2, 3], "response_ids": [4, E]}, {"prompt_ids": [5], "response_ids": [E]}]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, E], [5, E, E, E, E]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 4, E], [-100, E, -100, -100, -100]]


def test_a_cut_response_does_not_learn_to_stop() -> None:
    batch = PaddingCollator(pad_token_id=E, loss_on="response")(
        [{"prompt_ids": [1], "response_ids": [2, 3]}, {"prompt_ids": [1], "response_ids": [2, 3, 4, E]}]
    )
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, -100], [-100, 2, 3, 4, E]]


def test_eos_inside_a_row_does_not_end_it() -> None:
    """Labels come from lengths: an id that equals the pad id is learned like any other."""
    batch = PaddingCollator(pad_token_id=E, loss_on="all")([{"prompt_ids": [1, E, 2], "response_ids": [3, E]}])
    assert batch["labels"].tolist() == [[-100, E, 2, 3, E]]
