"""What the models answer to rows that a benchmark brings or a run set aside: written once, read by every judge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heed.answers.generation import generate
from heed.answers.partial import OnResponse, Response, resumed, row_keys
from heed.answers.responses import Answer, read_responses, response_rows
from heed.benchmarks.asking import FOLDER
from heed.benchmarks.loaded import Loaded
from heed.data.records import Record, rows_sha256
from heed.files import run_folder
from heed.saying import Progress

TEST_ROWS = "test"
"""What the run's own test rows are called, whichever benchmark asks them."""


def answer(loaded: Loaded, records: Sequence[Record], *, name: str, max_new_tokens: int) -> list[Answer]:
    """The model's answers to the rows called `name`. What was answered before is not asked again."""
    folder = loaded.asking.folder / FOLDER / loaded.subject.name
    path, key_path = folder / f"answers-{name}.json", folder / f"answers-{name}.key.json"
    key = loaded.key | {"max_new_tokens": max_new_tokens, "data_sha256": rows_sha256(records)}
    if not (key_path.is_file() and path.is_file() and run_folder.read_json(key_path) == key):
        folder.mkdir(parents=True, exist_ok=True)
        key_path.unlink(missing_ok=True)  # or it would vouch for other answers if we are killed between the two files
        write_answers(loaded, records, path, key, max_new_tokens=max_new_tokens)
        run_folder.write_json(key_path, key)
    return read_responses(path, say=loaded.asking.say)


def write_answers(
    loaded: Loaded, records: Sequence[Record], path: Path, key: dict[str, Any], *, max_new_tokens: int
) -> None:
    """Ask the model, continuing where an interrupted run stopped."""
    asking, model = loaded.asking, loaded.model()
    prompts_ids = [asking.prompt.encode_prompt(record.messages[:-1]) for record in records]
    with Progress(f"{loaded.subject.name} answers {path.stem.partition('-')[2]}", len(records)) as bar:

        def ask(missing: list[int], on_response: OnResponse) -> None:
            generate(
                model,
                asking.prompt,
                [prompts_ids[index] for index in missing],
                stop_token_ids=asking.contract.stop_token_ids,
                batch_size=asking.batch_size,
                max_new_tokens=max_new_tokens,
                on_response=lambda place, response: on_response(missing[place], response),
                say=asking.say,
            )

        def write(responses: list[Response]) -> None:
            run_folder.write_json(path, response_rows(records, responses))

        resumed(
            path.with_suffix(".partial.jsonl"),
            row_keys({name: each for name, each in key.items() if name != "data_sha256"}, prompts_ids),
            ask,
            write=write,
            on_response=lambda index, response: bar.update(),
            say=asking.say,
        )
