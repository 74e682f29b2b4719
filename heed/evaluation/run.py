"""An evaluation from its questions to its report, whole or one stage of it."""

from dataclasses import replace
from pathlib import Path

from heed.answers.exports import write_alpaca_eval, write_messages
from heed.config import EvalConfig
from heed.errors import UserError
from heed.evaluation.asking import answer, keys_of, plan_answers
from heed.evaluation.controlled import score_controls
from heed.evaluation.judged import judge, judge_settings
from heed.evaluation.kept import Answers, Evaluation, read_answers, read_evaluation
from heed.evaluation.scores import rows_given_away, score
from heed.evaluation.terminal import examples_text, result_text, scores_text, worse_text
from heed.files.lock import locked
from heed.files.run_folder import make_folder
from heed.judge.settings import JudgeSettings
from heed.judge.summary import summary_text
from heed.measure.clusters import clusters_of, clusters_text
from heed.measure.metrics import Metric, load_metrics
from heed.measure.verdict import JUDGE_SCORE
from heed.report import write_report_of
from heed.report.controls import controls_text
from heed.report.evidence import read_evidence
from heed.report.measured import measured
from heed.saying import Say
from heed.workers import what_is_here_stays


def evaluate(ours: EvalConfig, word: str | None = None, *, say: Say) -> None:
    """All stages, or the one that `word` names."""
    folder = evaluation_folder(ours)
    metrics = chosen_metrics(ours) if word in (None, "compare", "score") else None
    judging = judge_settings(ours) if word in (None, "compare", "judge") else None
    headline = headline_metric(ours, metrics, judging) if metrics is not None else None
    if word == "judge" and judging is None:
        raise UserError("judge_backend is missing (openai, ollama or decision): who is to judge?")
    people = Path(ours.people) if judging is not None and ours.people is not None else None
    asks = word in (None, "compare", "generate") or ours.responses is not None
    planned = plan_answers(ours, word, say) if asks else None
    what_is_here_stays()
    if planned is None:
        read_evaluation(folder)  # before the folder is locked: there may be none
    make_folder(folder)
    with locked(folder, say):
        if planned is not None:
            evaluation, answers = answer(planned, folder, keys_of(ours), say)
        else:
            evaluation = read_evaluation(folder)
            answers = read_answers(folder, evaluation, say)
        if metrics is not None:
            clusters = clusters_of(answers[evaluation.evaluated], ours.cluster)
            text = clusters_text(clusters, ours.cluster)
            evaluation = replace(evaluation, headline_metric=headline, clusters=text)
            seen_rows = rows_given_away(evaluation, say)
            evaluation, scores = score(
                folder, evaluation, answers, metrics, clusters=clusters, seen_rows=seen_rows, say=say
            )
            answers = {name: answers[name] for name in evaluation.systems}
            controlled = score_controls(folder, evaluation, answers, metrics, clusters=clusters, say=say)
            say(scores_text(evaluation, scores))
            say(controls_text(controlled))
            say(examples_text(evaluation, answers))
            say(worse_text(scores))
        if judging is not None:
            say(summary_text(judge(folder, evaluation, answers, judging, people=people, say=say)))
        if word == "export":
            for path in export(folder, evaluation, answers):
                say(f"written   {path}")
        say("\n" + "\n".join(f"{name:<9} {folder / asked.responses}" for name, asked in evaluation.systems.items()))
        if word not in ("generate", "export"):
            evidence = read_evidence(folder)
            found = measured(evidence)
            say(f"\n{result_text(evidence, found)}\n")
            say(f"report    {write_report_of(evidence, found, say)}")


def evaluation_folder(ours: EvalConfig) -> Path:
    if ours.responses is not None and ours.output_dir is None:
        raise UserError("output_dir is missing: where are the scores of responses to go?")
    place = ours.output_dir or ours.model_name_or_path
    if place is None:
        raise UserError("model_name_or_path is missing: a run folder, or any model folder or Hub id")
    folder = Path(place)
    if ours.output_dir is None and not folder.is_dir():
        raise UserError(f"output_dir is missing: {place} is not a folder here, so it cannot take the answers")
    return folder


def chosen_metrics(ours: EvalConfig) -> dict[str, Metric]:
    return load_metrics(
        ours.metrics, bertscore_model=ours.bertscore_model, bertscore_num_layers=ours.bertscore_num_layers
    )


def headline_metric(ours: EvalConfig, metrics: dict[str, Metric], judging: JudgeSettings | None) -> str | None:
    """The metric that the verdict is about. Raises UserError for one that is not measured."""
    judged = judging is not None and judging.mode != "pair"
    named = ours.headline_metric
    if named is None:
        return JUDGE_SCORE if judged else "exact_match" if "exact_match" in metrics else next(iter(metrics), None)
    if named not in metrics and not (judged and named == JUDGE_SCORE):
        known = ", ".join([*metrics, *([JUDGE_SCORE] if judged else [])])
        raise UserError(f"headline_metric: {named} is not measured here; take one of {known}")
    return named


def export(folder: Path, evaluation: Evaluation, answers: Answers) -> list[Path]:
    """The evaluated model's answers for AlpacaEval, and as conversations."""
    given = answers[evaluation.evaluated]
    generator = evaluation.systems[evaluation.evaluated].model
    return [
        write_alpaca_eval(folder, given, generator=generator, dataset=evaluation.what),
        write_messages(folder, given),
    ]
