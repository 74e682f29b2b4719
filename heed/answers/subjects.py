"""A model under evaluation: where it lies, how it wants to be asked, and which rows it has never seen."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heed import config
from heed.config import SftConfig
from heed.errors import UserError
from heed.files import run_folder

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.data.records import Record
    from heed.data.splits import Splits
    from heed.prompts.template import Contract, Prompt


MODEL_FILES = ("config.json", "adapter_config.json")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`name` is the model's part in the comparison: base or other, and tuned or model."""

    name: str
    model: str
    revision: str | None = None


def find_run(model: str) -> Path | None:
    """The run folder a model lies in: the folder itself, or the one around a checkpoint.

    Raises UserError for a run that was stopped before it saved its model.
    """
    folder = Path(model)
    run = next((each for each in (folder, folder.parent) if (each / run_folder.RUN_FILE).is_file()), None)
    if run == folder and (status := run_folder.read_json(run / run_folder.RUN_FILE)["status"]) != "done":
        checkpoints = ", ".join(sorted(map(str, run.glob("checkpoint-*")))) or "none"
        raise UserError(f"{run} did not finish (status: {status}); give one of its checkpoints ({checkpoints})")
    return run


def find_base(model: str, run: Path | None) -> Subject:
    """The model a run started from. Raises UserError when there is no run that would name it."""
    if run is None:
        raise UserError(f"compare_with_base: {model} is no run folder that would name its base model")
    record = run_folder.read_json(run / run_folder.RUN_FILE)
    return Subject(name="base", model=record["model"], revision=record["model_revision"])


def find_prompt(model: str, revision: str | None, prompt_name: str | None) -> "tuple[Prompt, Contract]":
    """The prompt contract a model brings; only a model without one is asked how it wants to be prompted.

    Raises UserError when a prompt is given to a model that has its own, or none to one that has not.
    """
    from heed.models.loading import load_tokenizer
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
    return prompt, prompt.contract()


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
        for name in ("adapter_config.json", "README.md")
    )
    named = run_folder.read_json(Path(adapter)).get("base_model_name_or_path") if adapter is not None else None
    if named is None and card is not None:
        named = ModelCard.load(card, ignore_metadata_errors=True).data.base_model
    if not isinstance(named, str):
        raise UserError(f"{subject.model} does not say which model it started from; name it with --base")
    return Subject(name="base", model=named)


def check_model(model: str, revision: str | None) -> None:
    """Raises UserError, in a sentence, for a name behind which there is no model, before anything heavy is loaded."""
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

    folder, problem = Path(model), ""
    if folder.is_dir():
        if not any((folder / name).is_file() for name in MODEL_FILES) and not (folder / run_folder.RUN_FILE).is_file():
            problem = f"the folder {model} holds no model ({' or '.join(MODEL_FILES)} is missing)"
    elif folder.exists():
        problem = f"{model} is a file; give the folder of a model, or a Hub id"
    else:
        for name in MODEL_FILES:
            try:
                hf_hub_download(model, name, revision=revision)
                return
            except LocalEntryNotFoundError:
                problem = f"{model} is no folder here, and the Hub cannot be reached (nor is it in the cache)"
            except EntryNotFoundError:
                problem = f"{model} on the Hub holds no model ({' or '.join(MODEL_FILES)} is missing)"
                continue
            except HFValidationError:
                problem = f"{model!r} is neither a folder here nor what a model on the Hub can be called (ME/MODEL)"
            except RevisionNotFoundError:
                problem = f"{model} on the Hub has no revision {revision}"
            except RepositoryNotFoundError:
                problem = f"{model} is neither a folder here nor a model on the Hub that you may see (`hf auth login`)"
            except (HfHubHTTPError, HTTPError, OSError) as error:
                problem = f"{model} could not be fetched from the Hub: {' '.join(str(error).split())[:200]}"
            break
    if problem:
        raise UserError(f"model: {problem}")


def shared_prompt(prompt: "Prompt", contract: "Contract", subject: Subject) -> "tuple[Prompt, list[int]]":
    """A model's template at work with another one's own tokenizer, and where that one's answers end."""
    from heed.models.loading import load_tokenizer
    from heed.prompts.template import make_prompt

    tokenizer = load_tokenizer(subject.model, subject.revision)
    if tokenizer.get_vocab() == prompt.tokenizer.get_vocab():
        return prompt, contract.stop_token_ids
    own = make_prompt(prompt.name, contract.template, tokenizer)
    return own, own.contract().stop_token_ids


def resolved_sft_config(run: Path) -> SftConfig:
    """What a run was told, as its folder remembers."""
    resolved = run_folder.read_json(run / run_folder.CONFIG_FILE)
    names = config.field_types(SftConfig)
    return SftConfig(**{name: each["value"] for name, each in resolved.items() if name in names})


def set_aside(run: Path, split: Literal["test", "validation", "train"]) -> "list[Record]":
    """The rows of a run's split, read again.

    Raises UserError when the run's data are no longer what it was trained and tested on, or the split is empty.
    """
    from heed.tokens import prepared
    from heed.training.plan import read_rows

    sft = resolved_sft_config(run)
    if sft.prepared is not None and split != "train":  # as it lies there; the source may not fit into memory
        sha256 = prepared.read_facts(Path(sft.prepared))["rows_sha256"]
        splits: Splits = {split: prepared.read_held_out(Path(sft.prepared), split)}
    else:
        reading, splits = read_rows(sft, lambda text: None)
        sha256 = reading.sha256
    trained_on = run_folder.read_json(run / run_folder.RUN_FILE)["data"]["rows_sha256"]
    if sha256 != trained_on:
        raise UserError(
            f"data: {sft.data} has changed since {run} was trained (sha256 {sha256[:12]}, then "
            f"{trained_on[:12]}), so its held-out rows are unknown; give the rows to answer with data: FILE"
        )
    if not splits[split]:
        raise UserError(f"split: the {split} split of {run} is empty")
    return splits[split]


def in_4bit(run: Path | None, asked: bool | None) -> bool:
    """An adapter is right only with the base model it was trained on, 4-bit rounding included."""
    if asked is not None or run is None:
        return bool(asked)
    sft = resolved_sft_config(run)
    return sft.use_peft and sft.load_in_4bit


def load_subject(subject: Subject, *, dtype: str, load_in_4bit: bool) -> Any:
    """The model on the accelerator, if there is one, ready to be asked."""
    import torch

    from heed.models import loading

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return loading.load_finished(
        subject.model, revision=subject.revision, dtype=dtype, load_in_4bit=load_in_4bit, device=device
    ).eval()
