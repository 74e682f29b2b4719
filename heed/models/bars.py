"""The bars of libraries: those of downloads stay, which may take an hour; Heed has one of its own for the rest."""

import huggingface_hub.utils
from transformers.utils import logging


def silence_loading() -> None:
    """transformers counts the weights that it loads; its switch would silence downloads too."""
    silent = huggingface_hub.utils.are_progress_bars_disabled()
    logging.disable_progress_bar()
    if not silent:
        huggingface_hub.utils.enable_progress_bars()
