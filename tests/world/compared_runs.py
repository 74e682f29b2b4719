"""Small run folders as training and evaluation leave them, with answers whose values a test chooses."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_run(
    folder: Path,
    values: Sequence[float],
    *,
    base: Sequence[float] | None = None,
    config: Mapping[str, Any] | None = None,
    contract: str = "c1",
    first_row: int = 0,
    status: str = "done",
    trained_rows: int = 30,
) -> Path:
    """A run whose model has these values of exact match, a row each; an answer is right, or says which run is wrong."""
    folder.mkdir(parents=True)
    facts: dict[str, Any] = {"status": status, "kept": "step 2", "seconds_of_all_starts": 10.0}
    write(folder / "run.json", facts | {"num_input_tokens_seen": 500, "encoded": {"train": {"rows": trained_rows}}})
    settings = {"output_dir": str(folder), "learning_rate": 1e-3, "seed": 0} | dict(config or {})
    resolved = {name: {"value": each, "source": "default"} for name, each in settings.items()}
    write(folder / "resolved_config.json", resolved)
    losses = [{"step": step, "eval_loss": 2.0 - step / 2, "num_input_tokens_seen": 250 * step} for step in (0, 1, 2)]
    write_lines(folder / "metrics.jsonl", [each | {"seconds": 5.0 * each["step"]} for each in losses])
    systems = ({"base": base} if base is not None else {}) | {"tuned": values}
    files = {"base": "responses_base.json", "tuned": "responses.json"}
    for name, given in systems.items():
        answers = [
            {
                "row_id": row,
                "instruction": f"Question {row}?",
                "input": "",
                "output": "right",
                "model_response": "right" if value == 1 else f"wrong <b>{folder.name}</b>",
            }
            for row, value in enumerate(given, first_row)
        ]
        write(folder / files[name], answers)
    asked = {name: {"model": str(folder), "revision": None, "responses": files[name]} for name in systems}
    evaluation = {"systems": asked, "contract": contract, "prompt": contract, "headline_metric": "exact_match"}
    write(folder / "evaluation.json", evaluation)
    items = [
        {"name": name, "row_id": row, "metrics": {"exact_match": value}}
        for name, given in systems.items()
        for row, value in enumerate(given, first_row)
    ]
    write_lines(folder / "items.jsonl", items)
    write_lines(folder / "rows.jsonl", [row_of(name, given) for name, given in systems.items()])
    return folder


def row_of(name: str, values: Sequence[float]) -> dict[str, Any]:
    about = {"system": "metrics", "task": "test rows", "metric": "exact_match", "name": name, "model": "m"}
    measured = {"value": sum(values) / len(values), "ci95": None, "n": len(values), "n_full": len(values)}
    origin = {"contract": "c1", "data": "d", "data_sha256": "s", "library": "heed", "versions": {}, "command": "x"}
    return about | measured | origin | {"notes": []}


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def write_lines(path: Path, values: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in values))
