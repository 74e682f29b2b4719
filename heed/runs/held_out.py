"""Whether a question is about a row that a run is evaluated on: by the row's number, or by what is asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heed.data.records import Record, normalized
from heed.data.splits import SPLITS, SplitName
from heed.errors import UserError
from heed.files import run_folder
from heed.runs.finished import rows_of, sft_run
from heed.saying import Say, count

HELD_OUT: tuple[SplitName, ...] = ("test", "validation")


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    known: Mapping[SplitName, set[object]]
    """Numbers of each split's rows, and what the held-out ones ask, normalized."""
    records: Sequence[Record]
    unread: str = ""
    """Why the rows could not be read, so that they are known by their numbers alone."""

    def splits_of(self, row_id: object, question: str) -> list[SplitName]:
        return [name for name in HELD_OUT if self.known[name] & {row_id, normalized(question)}]

    def refuse(self, asked: Iterable[tuple[object, str]], allowed: Sequence[str], key: str, say: Say) -> None:
        """Raises UserError for pairs on held-out rows that are not allowed; given are row_id and question of each."""
        if self.unread:
            say(f"          held-out rows are known by their numbers alone: {self.unread}")
        found = [self.splits_of(*each) for each in asked]
        for name in HELD_OUT:
            number = sum(name in each for each in found)
            if number and name not in allowed:
                raise UserError(
                    f"{key}: {number} of {len(found)} pairs are about {name} rows of the run, by row_id or by what is "
                    "asked; a model that is tuned on them cannot be evaluated on them. Leave them out (inspect_data.py "
                    "--preferences FILE --run RUN --export OTHER.jsonl), collect others on training rows "
                    "(eval_responses.py --split train --output_dir FOLDER), or allow them by name: "
                    f"--allow_held_out {name}"
                )
            if number:
                say(f"          {count(number, 'pair')} about {name} rows of the run, as allowed")


def held_out(run: Path) -> HeldOut:
    """Those of the fine-tuning, where `run` is on preferences. Raises UserError for a folder that is no run's."""
    run_folder.read_json(run / run_folder.RUN_FILE)
    known: dict[SplitName, set[object]] = {name: set() for name in SPLITS}
    records, unread = [], ""
    try:
        run = sft_run(run)
        if (path := run / run_folder.SPLITS_FILE).is_file():
            known |= {name: set(numbers) for name, numbers in run_folder.read_json(path).items()}
        for name, rows in rows_of(run, HELD_OUT).items():
            known[name] |= {value for each in rows for value in (each.row_id, normalized(each.question))}
            records += rows
    except UserError as error:
        unread = str(error)
    return HeldOut(known=known, records=records, unread=unread)
