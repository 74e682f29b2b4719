"""A model as training left it, ready to be asked: its run folder, its prompt, its base model, its held-out rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heed import config, modeling, run_folder
from heed.config import SftConfig
from heed.errors import UserError
from heed.plan import read_rows
from heed.prompts import Contract, Prompt, fetch_contract, load_prompt, prompt_from_contract
from heed.records import Record


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


def base_model(run: Path) -> tuple[str, str | None]:
    """The model that a run started from, and its revision."""
    record = run_folder.read_json(run / run_folder.RUN_FILE)
    return record["model"], record["model_revision"]


def in_4bit(run: Path | None) -> bool:
    """An adapter is right only with the base model it was trained on, 4-bit rounding included."""
    if run is None:
        return False
    resolved = run_folder.read_json(run / run_folder.CONFIG_FILE)
    return bool(resolved["use_peft"]["value"] and resolved["load_in_4bit"]["value"])


def held_out_rows(run: Path) -> list[Record]:
    """Raises UserError when the run's data are no longer what it was trained on."""
    resolved = run_folder.read_json(run / run_folder.CONFIG_FILE)
    names = config.field_types(SftConfig)
    sft = SftConfig(**{name: each["value"] for name, each in resolved.items() if name in names})
    reading, splits = read_rows(sft, lambda text: None)
    trained_on = run_folder.read_json(run / run_folder.RUN_FILE)["data"]["rows_sha256"]
    if reading.rows.sha256 != trained_on:
        raise UserError(
            f"data: {sft.data} has changed since {run} was trained (sha256 {reading.rows.sha256[:12]}, then "
            f"{trained_on[:12]}), so its held-out rows are unknown; give the rows with data: FILE"
        )
    return splits["test"]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A loaded model and how it is asked."""

    path: str
    model: Any
    prompt: Prompt
    contract: Contract


def load_all(
    models: Mapping[str, tuple[str, str | None]], *, dtype: str, prompt: Callable[[], str | None]
) -> dict[str, Finished]:
    """Models by name, from paths and revisions, each with its own prompt contract.

    A model without a contract is asked by what `prompt` names, or else by the first contract among the others, as a
    base model is beside the model that was made of it. Raises UserError when there is neither, or when that contract
    would give other ids with the model's tokenizer.
    """
    contracts = {name: fetch_contract(path, revision) for name, (path, revision) in models.items()}
    first = next((contract for contract in contracts.values() if contract is not None), None)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    found = {}
    for name, (path, revision) in models.items():
        tokenizer, contract = modeling.load_tokenizer(path, revision), contracts[name]
        if contract is not None:
            ready = prompt_from_contract(contract, tokenizer)
        elif (named := prompt()) is not None:
            ready = load_prompt(named, tokenizer)
            contract = ready.contract()
        elif first is not None:
            tokenizer.chat_template = None  # that of a base model has no say here
            ready, contract = prompt_from_contract(first, tokenizer), first
        else:
            raise UserError(
                f"{path} brings no prompt contract (it was not trained by Heed, or not to the end); say how it wants "
                "to be prompted with prompt: NAME (a file in prompts/, or model for its own chat template)"
            )
        model = modeling.load_finished(
            path, revision=revision, dtype=dtype, load_in_4bit=in_4bit(find_run(path)), device=device
        )
        found[name] = Finished(path=path, model=model.eval(), prompt=ready, contract=contract)
    return found
