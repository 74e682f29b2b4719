"""A model under evaluation: where it is, how it is prompted, and which rows it has never seen."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed.config.training import Bits
from heed.errors import UserError, reason_of
from heed.files import run_folder
from heed.runs.finished import Subject, find_base

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.prompts.template import Contract, Prompt


def find_prompt(model: str, revision: str | None, prompt_name: str | None) -> "tuple[Prompt, Contract]":
    """The prompt contract a model brings; only a model without one is asked how it wants to be prompted.

    Raises UserError when a prompt is given to a model that has its own, or none to one without.
    """
    from heed.models.loading import load_tokenizer, own_stops
    from heed.prompts.template import fetch_contract, load_prompt, prompt_from_contract

    tokenizer = load_tokenizer(model, revision)
    contract = fetch_contract(model, revision)
    if contract is not None:
        if prompt_name is not None:
            raise UserError(
                f"prompt: {prompt_name}, but {model} was trained with {contract.prompt} and brings that contract; "
                "leave prompt out"
            )
        return prompt_from_contract(contract, tokenizer), contract
    if prompt_name is None:
        raise UserError(
            f"{model} brings no prompt contract (it was not trained by Heed, or not to the end); say how it wants to "
            "be prompted with prompt: NAME (a file in prompts/, or model for its own chat template)"
        )
    prompt = load_prompt(prompt_name, tokenizer)
    return prompt, prompt.contract(own_stops(model, revision))


def base_of(subject: Subject, run: Path | None) -> Subject:
    """The model that one started from, by its run, its adapter, or its card.

    Raises UserError where none of them names it.
    """
    from huggingface_hub import ModelCard
    from transformers.utils.hub import cached_file

    if run is not None:
        return find_base(subject.model, run)
    adapter, card = (
        cached_file(subject.model, name, revision=subject.revision, _raise_exceptions_for_missing_entries=False)
        for name in (run_folder.ADAPTER_FILE, "README.md")
    )
    named = run_folder.read_json(Path(adapter)).get("base_model_name_or_path") if adapter is not None else None
    if named is None and card is not None:
        named = ModelCard.load(card, ignore_metadata_errors=True).data.base_model
    if not isinstance(named, str):
        raise UserError(f"{subject.model} does not say which model it started from; name it with --base")
    return Subject(name="base", model=named)


def check_model(model: str, revision: str | None) -> None:
    """Raises UserError, in a sentence, for a name that leads to no model, before anything heavy is loaded."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from heed.models.gguf import refuse_other_files

    folder, problem = Path(model), ""
    if folder.is_dir():
        if not run_folder.has_model(folder) and not (folder / run_folder.RUN_FILE).is_file():
            problem = f"the folder {model} contains no model ({' or '.join(run_folder.MODEL_FILES)} is missing)"
    elif folder.expanduser().is_file():
        refuse_other_files(folder.expanduser())
    else:
        for name in run_folder.MODEL_FILES:
            try:
                hf_hub_download(model, name, revision=revision)
                return
            except LocalEntryNotFoundError:
                problem = f"{model} is not a folder here, and the Hub cannot be reached (nor is it in the cache)"
            except EntryNotFoundError:
                problem = f"{model} on the Hub contains no model ({' or '.join(run_folder.MODEL_FILES)} is missing)"
                continue
            except HFValidationError:
                problem = f"{model!r} is neither a folder here nor a possible name of a model on the Hub (ME/MODEL)"
            except RevisionNotFoundError:
                problem = f"{model} on the Hub has no revision {revision}"
            except RepositoryNotFoundError:
                problem = f"{model} is neither a folder here nor a model on the Hub that you may see (`hf auth login`)"
            except (HfHubHTTPError, HTTPError, OSError) as error:
                problem = f"{model} could not be fetched from the Hub: {reason_of(error)}"
            break
    if problem:
        raise UserError(f"model: {problem}")


def shared_prompt(prompt: "Prompt", contract: "Contract", subject: Subject) -> "tuple[Prompt, list[int]]":
    """A model's template used with another one's own tokenizer, and where that one's answers end."""
    from heed.models.loading import load_tokenizer, own_stops
    from heed.prompts.template import load_prompt, make_prompt

    tokenizer = load_tokenizer(subject.model, subject.revision)
    if subject.own_template:
        own = load_prompt("model", tokenizer)
        return own, own.contract(own_stops(subject.model, subject.revision)).stop_token_ids
    if tokenizer.get_vocab() == prompt.tokenizer.get_vocab():
        return prompt, sorted({*contract.stop_token_ids, *own_stops(subject.model, subject.revision)})
    own = make_prompt(prompt.name, contract.template, tokenizer)
    return own, own.contract(own_stops(subject.model, subject.revision)).stop_token_ids


def in_own_template(subject: Subject, contract: "Contract") -> Subject | None:
    """The same model, asked as it came; None where it has no chat template, or is asked with that one anyway."""
    from heed.models.loading import load_tokenizer

    template = load_tokenizer(subject.model, subject.revision).chat_template
    if template in (None, contract.template):
        return None
    return replace(subject, name=f"{subject.name} (own template)", own_template=True)


def load_subject(subject: Subject, *, dtype: str, bits: Bits) -> Any:
    """The model on the accelerator, if there is one, ready to be asked."""
    import torch

    from heed.models import loading

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return loading.load_finished(subject.model, revision=subject.revision, dtype=dtype, bits=bits, device=device).eval()


def stored(bits: Bits) -> dict[str, bool]:
    """What answers depend on, by the keys: as it was written before there were 8 bits."""
    return {"load_in_4bit": bits == 4} | ({"load_in_8bit": True} if bits == 8 else {})
