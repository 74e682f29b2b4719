"""See exactly what a training run would learn: every row looked at, before any model is loaded.

    python inspect_data.py --config configs/tiny.yaml
    python inspect_data.py --config configs/tiny.yaml --data my_rows.json --html rows.html
    python inspect_data.py --config configs/tiny.yaml --export clean.jsonl      repeated and useless rows left out
    python inspect_data.py --config configs/tiny.yaml --export clean            the same, a file for each split
    python inspect_data.py --config configs/tiny.yaml --against test.json       training rows that give a test away
    python inspect_data.py --config configs/tiny.yaml --data odd.csv --column-map    which columns may be meant
    python inspect_data.py --run runs/tiny --step 120       the rows that a step of a run learned from
    python inspect_data.py --run runs/tiny --map            the rows that the run never learned, which may be wrong
    python inspect_data.py --preferences pairs.jsonl --run runs/tiny    pairs to tune the run further, and --export

Prints what was found and three rows token by token; ends with code 2 when a finding is over its threshold, as
train_sft.py does. What is found is cached, so that training does not look again. It reads the same config as training.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed import config
from heed.commands import run_script
from heed.config import InspectConfig, Settings, SftConfig
from heed.errors import UserError
from heed.workers import what_is_here_stays

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.audit.findings import Audit
    from heed.audit.page import Padding
    from heed.data.rows import RowStream
    from heed.tokens.batches import FlatCollator, PaddingCollator


def main(arguments: Sequence[str]) -> None:
    if config.asks_for_help(arguments):
        more = "The config may have every key of train_sft.py; those about data, prompt and lengths are read."
        print(config.help_text(InspectConfig, __doc__ or "", more=more, word=config.searched_word(arguments)))
        return
    command_line = config.parse_command_line(arguments, flags=("column_map",))
    ours, settings = read_config(command_line)
    if ours.preferences is not None:
        inspect_pairs(ours.preferences, ours, settings)
        return
    if ours.run is not None:
        print(map_text(Path(ours.run)) if ours.map else step_text(Path(ours.run), ours.step))
        return
    sft = config.script_config(SftConfig, settings)
    if command_line.column_map:
        print(column_map(sft))
        return
    inspect(ours, sft, settings)


def read_config(command_line: config.CommandLine) -> tuple[InspectConfig, Settings]:
    from transformers import TrainingArguments

    what_is_here_stays()
    types = [config.field_types(schema) for schema in (TrainingArguments, SftConfig, InspectConfig)]
    settings = config.read_settings(command_line, types[0] | types[1] | types[2])
    ours = config.script_config(InspectConfig, settings)
    config.refuse_unread(InspectConfig, settings)
    if ours.against:
        listed = settings.get("audit_against")
        both = [*(listed.value if listed else []), *ours.against]
        settings["audit_against"] = config.Setting(value=both, source="--against", set_by_user=True)
    return ours, settings


def step_text(run: Path, step: int | None) -> str:
    """What a step learned from, the rows with the highest loss first where those were recorded."""
    from heed.preferences.pairs import pairs_of
    from heed.runs.finished import preferred_from, run_around, set_aside
    from heed.runs.recorder import rows_of_step, show_step

    if step is None:
        raise UserError(f"step is missing: which step of {run} is to be shown? give --step N, or --map for all of them")
    rows = rows_of_step(run, step)
    of_pairs = run_around(run) is not None and preferred_from(run) is not None
    return show_step(rows, pairs_of(run).records if of_pairs else set_aside(run, "train"))


def map_text(run: Path) -> str:
    """How the loss of each row went, and where the page and the list of suspects are."""
    from heed.files import run_folder
    from heed.runs.finished import preferred_from, run_around, set_aside
    from heed.study import row_map

    if run_around(run) is not None and preferred_from(run) is not None:
        raise UserError(f"map: {run} learned from pairs, and has no loss of single rows; --step N shows its pairs")
    records = set_aside(run, "train")
    rows = row_map.row_map(run, records)
    listed = row_map.suspects(rows, records)
    page = row_map.write_map(run, rows, listed)
    return f"{row_map.map_text(rows, listed)}\n\npage      {page}\nlist      {run / run_folder.SUSPECTS_FILE}"


def inspect_pairs(data: str, ours: InspectConfig, settings: Settings) -> None:
    """Show what is found in pairs; raises UserError when a finding stops training."""
    from heed.audit.cleaning import is_folder
    from heed.audit.findings import refuse
    from heed.data.sources import Source, locations
    from heed.preferences.audit import audit, export
    from heed.preferences.pairs import read_pairs

    columns, changes, allow = (
        settings[name].value if name in settings else default
        for name, default in (("columns", {}), ("audit", {}), ("audit_allow", []))
    )
    check_outputs(ours, locations(data))
    if ours.export is not None and is_folder(Path(ours.export)):
        raise UserError(f"export: {ours.export}: pairs go into one file; name it FILE.jsonl")
    source = Source(data=data, columns=columns, on_bad_row="drop")
    found = audit(read_pairs(source), Path(ours.run) if ours.run is not None else None, changes, allow)
    print(f"{data}: {found}")
    if ours.export is not None:
        cleaned = export(Path(ours.export), source, found.reasons)
        print(
            f"\npairs     {ours.export}: {cleaned.kept:,} kept; {cleaned.rejected_file}: {cleaned.left_out:,} left out"
        )
    refuse(found.findings, "their places are named above; --export FILE.jsonl leaves out what needs no judgement")


def column_map(sft: SftConfig) -> str:
    """What the first row looks like, and which of its columns may be meant."""
    from heed.data.reading import data_source
    from heed.data.recognition import decide_shape, guess_columns
    from heed.data.rows import ignored, notes
    from heed.data.shapes import unused_fields
    from heed.data.sources import pieces, raw_rows
    from heed.tokens.preview import one_line

    source = data_source(sft)
    row = next((row for row in raw_rows(pieces(source)) if isinstance(row.value, dict)), None)
    if row is None:
        raise UserError(f"{sft.data}: no row with named fields was found")
    lines = [f"{row.place}:", *(one_line(f"  {name}: {value}") for name, value in row.value.items())]
    try:
        shape, _ = decide_shape(iter([row]), source.columns)
        unused = ignored(Counter(unused_fields(row.value, shape)))
        lines.append("; ".join([f"read as {shape.row_format}", *notes(shape.understood, unused)]))
    except UserError:
        guess, problem = guess_columns(row, source.columns)
        if problem or not guess:
            raise
        lines += [
            "a guess, which is not applied:",
            *(one_line(f"  {ours:<12} <- {theirs}: {row.value[theirs]}") for ours, theirs in guess.items()),
            f"to apply it: columns: {{{', '.join(f'{ours}: {theirs}' for ours, theirs in guess.items())}}}",
        ]
    return "\n".join(lines)


def inspect(ours: InspectConfig, sft: SftConfig, settings: Settings) -> None:
    """Look at every row, show and write what is asked for; raises UserError when a finding stops training."""
    from heed.audit import findings
    from heed.audit.cache import check_cache
    from heed.data.reading import data_source
    from heed.data.records import Record
    from heed.data.rows import notes
    from heed.data.sources import file_hashes, locations, stream
    from heed.data.splits import SPLITS
    from heed.models import loading
    from heed.models.attention import FLAT_FAMILIES
    from heed.prompts.template import load_prompt
    from heed.tokens.encoding import encode_row
    from heed.tokens.preview import measure_learned, preview_rows
    from heed.training import plan

    source = data_source(sft)
    check_cache()
    check_outputs(ours, locations(source.data))
    tokenizer = loading.load_tokenizer(sft.model_name_or_path, sft.model_revision)
    prompt = load_prompt(sft.prompt, tokenizer)
    config = loading.load_config(sft.model_name_or_path, sft.model_revision)
    loading.check_vocabulary(tokenizer, config, sft.model_name_or_path)
    policy = plan.encoding_policy(sft, loading.positions(config))
    # The proof of a family that is not on the list needs the model itself, which is not loaded here.
    believed = sft.attn_implementation is None and config.model_type in FLAT_FAMILIES
    flat = sft.batching == "flat" or (sft.batching == "auto" and believed)

    from_the_start = partial(stream, source, prompt.refusal)
    found, _ = plan.audit_rows(sft, prompt, policy, lambda: from_the_start().rows, file_hashes(source), None)
    rows_again = from_the_start()
    noted = "".join(f"\n{note}" for note in notes(rows_again.shape.understood, found.scan.ignored_fields))
    print(f"{', '.join(locations(sft.data))}: {found.summary()}{noted}\n\n{findings.table(found)}")
    if not (found.scan.rows["split"] == SPLITS.index("train")).any():
        raise UserError(f"{sft.data}: no row is left for training; change split_shares, or give more rows")

    collator = make_collator(sft, prompt.eos_token_id, flat=flat)
    first = list(islice((row for row in rows_again.rows if isinstance(row, Record)), ours.preview_rows))
    examples = [example for record in first for example in encode_row(record, prompt, policy)]
    usable = [example for example in examples if example["outcome"] != "too_long"]
    if usable:
        places = {record.row_id: record.place for record in first}
        print(f"\nlearned   {measure_learned(usable, collator, prompt.eos_token_id)}")
        print()
        print(preview_rows(tokenizer, usable, collator, places))
    write_files(
        ours,
        found,
        from_the_start,
        prompt,
        policy,
        collator,
        padding_of(sft, settings, found, flat=flat),
        sft,
    )
    findings.refuse(found.findings)


def check_outputs(ours: InspectConfig, locations: Sequence[str]) -> None:
    """Raises UserError, before minutes of looking, for a file that cannot be written or is one of those read."""
    from heed.audit.cleaning import is_folder

    if ours.preview_rows < 0:
        raise UserError(f"preview_rows: {ours.preview_rows} rows cannot be shown")
    if ours.flags is not None and not Path(ours.flags).is_dir():
        raise UserError(f"flags: {ours.flags} is not a folder")
    read = {Path(location).expanduser().resolve() for location in locations}
    for name, value in (("html", ours.html), ("export", ours.export), ("pairs", ours.pairs)):
        if value is None:
            continue
        path = Path(value)
        if name == "export" and is_folder(path):
            if path.exists() and (path.is_file() or any(path.iterdir())):
                raise UserError(f"export: {path} is there already; name a new folder, or a file (FILE.jsonl)")
        elif path.is_dir():
            raise UserError(f"{name}: {path} is a folder; name a file")
        if not os.access(path.parent, os.W_OK):
            raise UserError(f"{name}: {path.parent} is not a folder that can be written to")
        if read & {path.resolve(), *path.resolve().parents}:
            raise UserError(f"{name}: {path} is among the rows that are read; name another")


def write_files(
    ours: InspectConfig,
    found: "Audit",
    stream: "Callable[[], RowStream]",
    prompt: Any,
    policy: Any,
    collator: "FlatCollator | PaddingCollator",
    padding: "Padding",
    sft: SftConfig,
) -> None:
    """The files that were asked for; `stream` gives the rows from the beginning."""
    from heed.audit.cleaning import export_pairs, export_rows, is_folder, read_list
    from heed.audit.flags import write_flags
    from heed.audit.page import write_inspector
    from heed.data.sources import locations

    listed = read_list(Path(ours.leave_out)) if ours.leave_out is not None else {}
    print()
    if ours.html is not None:
        shown = write_inspector(
            Path(ours.html),
            rows=stream().rows,
            audit=found,
            prompt=prompt,
            policy=policy,
            collator=collator,
            padding=padding,
            source=", ".join(locations(sft.data)),
        )
        print(f"page      {ours.html}: {shown:,} of {len(found.scan.rows):,} rows")
    if ours.export is not None:
        path = Path(ours.export)
        cleaned = export_rows(path, stream(), found.scan, listed)
        print(f"rows      {path}: {cleaned.kept:,} kept; {cleaned.rejected_file}: {cleaned.left_out:,} left out")
        if not is_folder(path) and sft.split != "hash":
            print(
                "          the splits are not in this file: a run that trains on it splits the rows again; --export "
                f"{path.with_suffix('')} would write a folder that keeps every row in its split"
            )
    if ours.pairs is not None:
        count = export_pairs(Path(ours.pairs), stream().rows, found.scan, prompt, policy, listed)
        print(f"pairs     {ours.pairs}: {count:,} prompts with their answers")
    if ours.flags is not None:
        write_flags(Path(ours.flags), found.scan)
        print(f"flags     {ours.flags}: those of every row")


def make_collator(sft: SftConfig, eos_token_id: int, *, flat: bool) -> "FlatCollator | PaddingCollator":
    """The collator of the training run, as far as it matters for one row alone."""
    from heed.tokens.batches import FlatCollator, PaddingCollator

    if flat:
        return FlatCollator(pad_token_id=eos_token_id, loss_on=sft.loss_on, share_prefix=True)
    return PaddingCollator(pad_token_id=eos_token_id, loss_on=sft.loss_on)


def padding_of(sft: SftConfig, settings: Settings, found: "Audit", *, flat: bool) -> "Padding":
    """How much padding the first epoch's batches would have, rows in the order of the training run."""
    from heed.audit.page import measure_padding

    def value(name: str, default: Any) -> Any:
        return settings[name].value if name in settings else default

    seed = value("data_seed", None)
    return measure_padding(
        found.scan,
        batching="flat" if flat else "padded",
        rows_per_batch=value("per_device_train_batch_size", 8) if sft.tokens_per_batch is None else None,
        tokens_per_batch=sft.tokens_per_batch,
        strategy=str(value("train_sampling_strategy", "random")),
        seed=seed if seed is not None else value("seed", 42),
        max_length=sft.max_length,
    )


if __name__ == "__main__":
    run_script(main)
