"""The bars of libraries: those of downloads stay, which may take an hour; Heed has one of its own for the rest."""

import huggingface_hub.utils
from transformers.utils import loading_report, logging


def silence_loading() -> None:
    """transformers counts the weights that it loads; its switch would silence downloads too.

    What it reports of a model loses its colors: the names in there are the file's, so no sequence is let through.
    """
    silent = huggingface_hub.utils.are_progress_bars_disabled()
    logging.disable_progress_bar()
    if not silent:
        huggingface_hub.utils.enable_progress_bars()
    loading_report.PALETTE.update(dict.fromkeys(loading_report.PALETTE, ""))
