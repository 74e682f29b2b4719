"""docs/keys.md says what the schemas say."""

from heed.config.__main__ import page
from world.small_world import ROOT


def test_the_page_of_keys_is_what_make_keys_writes() -> None:
    assert (ROOT / "docs" / "keys.md").read_text() == page(), "run `make keys`"


def test_a_row_of_the_page_gives_type_default_help_and_condition() -> None:
    assert (
        "| `lora_r` | a whole number | 16 | rank of the adapter | use_peft: true |\n" in page()
        and "| `hub_token` | a token in a file leaks; use `hf auth login` or HF_TOKEN |\n" in page()
    )
