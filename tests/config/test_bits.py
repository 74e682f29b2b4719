"""How the frozen weights beside an adapter are kept."""

import pytest

from heed import config
from heed.config.training import Bits, bits_of
from heed.errors import UserError
from heed.training.arguments import read_config

RUN = ["--model_name_or_path", "m", "--data", "d", "--output_dir", "o", "--use_peft", "true", "--load_in_8bit", "true"]


@pytest.mark.parametrize(("keys", "bits"), [((False, False), None), ((True, False), 4), ((False, True), 8)])
def test_the_weights_are_kept_as_they_are_or_in_4_or_8_bits(keys: tuple[bool, bool], bits: Bits) -> None:
    assert bits_of(*keys) == bits


def test_4_and_8_bits_at_once_are_refused() -> None:
    with pytest.raises(UserError, match="load_in_4bit: true and load_in_8bit: true contradict each other"):
        bits_of(True, True)


def test_8_bits_compute_in_the_type_of_the_weights() -> None:
    told = read_config(config.parse_command_line(RUN, flags=()))
    assert told.ours.bits == 8 and told.settings["bf16"].value is False
    with pytest.raises(UserError, match="bf16: true, but load_in_8bit computes in the type of the weights"):
        read_config(config.parse_command_line([*RUN, "--bf16", "true"], flags=()))
