"""An evaluation from its questions to its report, whole or one stage of it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from heed.config import EvalConfig
from heed.errors import UserError
from heed.evaluation.asking import answer_rows, judge_settings
from heed.saying import Say

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.evaluation.stages import Evaluation, Scores
    from heed.measure.metrics import Metric


EXAMPLES_SHOWN = 3


def evaluate(
    ours: EvalConfig,
    word: str | None = None,
    *,
    check: Callable[[], None] = lambda: None,
    say: Say = print,
) -> None:
    """All stages, or the one that `word` names. `check` is called when every key of `ours` has been read."""
    from heed.evaluation.stages import export, judge, read_evaluation, rows_given_away, score, scores_text
    from heed.judge.summary import summary_text
    from heed.report import write_report

    folder = evaluation_folder(ours)
    metrics = load_metrics(ours) if word in (None, "compare", "score") else None
    settings = judge_settings(ours) if word in (None, "compare", "judge") else None
    if word == "judge" and settings is None:
        raise UserError("judge_backend is missing (openai, ollama or decision): who is to judge?")
    people = Path(ours.people) if settings is not None and ours.people is not None else None

    if word in (None, "compare", "generate"):
        evaluation = answer_rows(ours, word, folder, check=check, say=say)
    else:
        check()
        evaluation = read_evaluation(folder)
    if metrics is not None:
        seen_rows = rows_given_away(evaluation, say)
        scores = score(folder, evaluation, metrics, seen_rows=seen_rows, say=say)
        say(scores_text(evaluation, scores))
        say(examples_text(folder, evaluation))
        say(worse_text(scores))
    if settings is not None:
        say(summary_text(judge(folder, evaluation, settings, people=people, say=say)))
    if word == "export":
        for path in export(folder, evaluation, say):
            say(f"written   {path}")
    if word not in ("generate", "export"):
        say(f"\nreport    {write_report(folder)}")
    say("\n".join(f"{name:<9} {folder / asked.responses}" for name, asked in evaluation.systems.items()))


def evaluation_folder(ours: EvalConfig) -> Path:
    if ours.responses is not None and ours.output_dir is None:
        raise UserError("output_dir is missing: where are the scores of responses to go?")
    place = ours.output_dir or ours.model_name_or_path
    if place is None:
        raise UserError("model_name_or_path is missing: a run folder, or any model folder or Hub id")
    folder = Path(place)
    if ours.output_dir is None and not folder.is_dir():
        raise UserError(f"output_dir is missing: {place} is no folder here that could take the answers")
    return folder


def load_metrics(ours: EvalConfig) -> "dict[str, Metric]":
    from heed.measure.metrics import load_metrics

    return load_metrics(
        ours.metrics, bertscore_model=ours.bertscore_model, bertscore_num_layers=ours.bertscore_num_layers
    )


def examples_text(folder: Path, evaluation: "Evaluation") -> str:
    """A few rows side by side, evenly spaced, so that nobody has picked the good ones."""
    from heed.evaluation.stages import read_answers
    from heed.tokens.preview import one_line

    answers = read_answers(folder, evaluation, lambda text: None)
    asked = answers[evaluation.evaluated]
    by_row = {name: {each.row_id: each.model_response for each in given} for name, given in answers.items()}
    lines = []
    count = min(EXAMPLES_SHOWN, len(asked))
    for index in (number * len(asked) // count for number in range(count)):
        row = asked[index]
        lines.append(f"\nrow {row.row_id}    {one_line(row.instruction)}")
        if row.input:
            lines.append(f"  input    {one_line(row.input)}")
        lines.append(f"  expected {one_line(row.output)}")
        lines += [f"  {name:<8} {one_line(given[row.row_id])}" for name, given in by_row.items() if row.row_id in given]
    return "\n".join(lines)


def worse_text(scores: "Scores") -> str:
    if scores.comparison is None:
        return ""
    notes = [f"  {note}" for note in scores.comparison.notes]
    count = len({each.row_id for each in scores.comparison.worse})
    total = max((each.n for each in scores.comparison.metrics.values()), default=0)
    which = "; the report shows which" if count else ""
    return "\n".join([f"\nworse by some metric on {count} of {total} rows{which}", *notes])
