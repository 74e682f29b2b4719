"""What a finished run says of itself: its model, its base, its prompt, the rows it set aside."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed import config
from heed.config import SftConfig
from heed.config.training import Bits, bits_of
from heed.errors import UserError
from heed.files import run_folder

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.data.records import Record
    from heed.data.splits import SplitName, Splits


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`name` is the model's part in the comparison: base or other, and tuned or model."""

    name: str
    model: str
    revision: str | None = None
    own_template: bool = False
    """Asked with the chat template it came with, not with the evaluated model's."""


def find_run(model: str) -> Path | None:
    """The run folder a model is in: the folder itself, or the one around a checkpoint.

    Raises UserError for a run that was stopped before it saved its model.
    """
    folder = Path(model)
    run = run_around(folder)
    if run == folder and (status := run_folder.read_json(run / run_folder.RUN_FILE)["status"]) != "done":
        checkpoints = ", ".join(sorted(map(str, run.glob("checkpoint-*")))) or "none"
        raise UserError(f"{run} did not finish (status: {status}); give one of its checkpoints ({checkpoints})")
    return run


def run_around(folder: Path) -> Path | None:
    """The folder itself where it is a run's, or the one that it is a checkpoint of."""
    return next((each for each in (folder, folder.parent) if (each / run_folder.RUN_FILE).is_file()), None)


def from_here(folder: Path, name: str) -> str:
    """A path named in the files of a run, as it is reached from the present working folder.

    Relative paths begin where the run was started, which run.json names; what has the same name here may be another
    thing. A run that was moved to where its folder does not exist is taken as it stands.
    """
    run = run_around(folder)
    began = run_folder.read_json(run / run_folder.RUN_FILE).get("working_folder") if run is not None else None
    if began is None or Path(began) == Path.cwd():
        return name
    there = Path(began) / name
    return str(there) if there.exists() else name


def find_base(model: str, run: Path | None) -> Subject:
    """The model a run started from. Raises UserError when no run names it."""
    if run is None:
        raise UserError(f"compare_with_base: {model} is not a run folder, so its base model is not known")
    record = run_folder.read_json(run / run_folder.RUN_FILE)
    name = "base" if preferred_from(run) is None else "sft"
    return Subject(name=name, model=from_here(run, record["model"]), revision=record["model_revision"])


def find_bases(model: str, run: Path | None) -> list[Subject]:
    """The model a run started from; and of a run on preferences, what its model was fine-tuned from."""
    found = [find_base(model, run)]
    if run is not None and (earlier := sft_run(run)) != run:
        found.append(find_base(model, earlier))
    return found


def setting(run: Path, name: str) -> Any:
    """The value of a key of a run of any kind; None where the run has no such key."""
    return run_folder.read_json(run / run_folder.CONFIG_FILE).get(name, {}).get("value")


def preferred_from(run: Path) -> str | None:
    """The model that a run has tuned further on preferences; None for a run on instructions."""
    return from_here(run, setting(run, "model_name_or_path")) if setting(run, "pairs") is not None else None


def sft_run(run: Path) -> Path:
    """The run whose rows these are: of one on preferences, the run that fine-tuned its model.

    Raises UserError where that one is not here.
    """
    while (model := preferred_from(run)) is not None:
        earlier = find_run(model) if Path(model).is_dir() else None
        if earlier is None:
            raise UserError(
                f"{run} was tuned further from {model}, whose run folder is not here, so its held-out rows are not "
                "known; give the rows with data: FILE"
            )
        run = earlier
    return run


def resolved_sft_config(run: Path) -> SftConfig:
    """The settings of a run on instructions, as its folder records them; see `sft_run`."""
    run = sft_run(run)
    resolved = run_folder.read_json(run / run_folder.CONFIG_FILE)
    names = config.field_types(SftConfig)
    values = {name: each["value"] for name, each in resolved.items() if name in names}
    for name in ("model_name_or_path", "prepared", "forgetting"):
        values |= {name: from_here(run, values[name])} if values.get(name) else {}
    values["data"] = data_from_here(run, values["data"])
    return SftConfig(**values)


def data_from_here(run: Path, data: Any) -> Any:
    if isinstance(data, str):
        return from_here(run, data)
    return {name: data_from_here(run, each) for name, each in data.items()}


def set_aside(run: Path, split: "SplitName") -> "list[Record]":
    """The rows of a run's split, read again. Raises UserError as `rows_of`, and where the split is empty."""
    rows = rows_of(run, (split,))[split]
    if not rows:
        raise UserError(f"split: the {split} split of {sft_run(run)} is empty")
    return rows


def rows_of(run: Path, names: "Sequence[SplitName]") -> "Splits":
    """The rows of some splits of a run, read again.

    Raises UserError when the run's data are no longer what it was trained and tested on.
    """
    from heed.data.reading import data_source, read_rows
    from heed.data.sources import read
    from heed.tokens import prepared

    run = sft_run(run)
    sft = resolved_sft_config(run)
    if sft.prepared is not None and "train" not in names:  # as it is there; the source may not fit into memory
        sha256 = prepared.read_facts(Path(sft.prepared))["rows_sha256"]
        splits: Splits = {name: prepared.read_held_out(Path(sft.prepared), name) for name in names}
    else:
        file = Path(sft.prepared or run) / run_folder.REJECTED_FILE
        left_out = {each["row_id"] for each in run_folder.read_lines(file)} if file.is_file() else set()

        def refusal(record: "Record") -> str | None:
            return "left out by the run" if record.row_id in left_out else None

        if sft.prepared is None and (run / run_folder.SPLITS_FILE).is_file():  # how rows are split may have changed
            reading = read(data_source(sft), refusal)
            written = run_folder.read_json(run / run_folder.SPLITS_FILE)
            ids = {name: set(written.get(name, ())) for name in names}
            splits = {name: [each for each in reading.rows.records if each.row_id in ids[name]] for name in names}
        else:
            reading, splits = read_rows(sft, lambda text: None, refusal)
        sha256 = reading.sha256
    trained_on = run_folder.read_json(run / run_folder.RUN_FILE)["data"]["rows_sha256"]
    if sha256 != trained_on:
        raise UserError(
            f"data: {sft.data} has changed since {run} was trained (sha256 {sha256[:12]}, then "
            f"{trained_on[:12]}), so its held-out rows are unknown; give the rows to answer with data: FILE"
        )
    return {name: splits[name] for name in names}


def weight_bits(run: Path | None, in_4bit: bool | None = None, in_8bit: bool | None = None) -> Bits:
    """As asked for, else as the run was trained: an adapter is right only with the base it was trained on, its
    rounding included. Raises UserError for 4 and 8 bits at once."""
    if in_4bit is None and in_8bit is None and run is not None and setting(run, "use_peft"):
        in_4bit, in_8bit = setting(run, "load_in_4bit"), setting(run, "load_in_8bit")
    return bits_of(bool(in_4bit), bool(in_8bit))
