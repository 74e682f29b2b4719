"""One judge on all answers: scores, pairs and controls, into judge.jsonl and judge_summary.json, and how it agrees."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any

from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import json_sha256
from heed.judge import agreement
from heed.judge.asking import Asker, Prices
from heed.judge.cache import Cache
from heed.judge.client import Backend, OpenAIBackend
from heed.judge.controls import check_pairs, check_scores, make_controls
from heed.judge.ollama_client import OllamaBackend
from heed.judge.pairs import control_pairs, judge_pairs, pair_summary, pair_up, same
from heed.judge.prompts import JudgePrompt, load_judge_prompt
from heed.judge.scores import judge_scores, length_correlation, score_summary
from heed.judge.settings import JudgeSettings
from heed.judge.verdicts import JudgedAnswer, PairVerdict, ScoreVerdict, verdict_of
from heed.saying import Progress, Say, count

CURRENCY_NOTE = "in the currency of judge_prices, for the requests of this run; replies from the cache cost nothing"
LIBRARIES = {"openai": "openai", "ollama": "openai", "decision": "transformers"}


def open_judge(settings: JudgeSettings) -> Backend:
    if settings.backend == "decision":
        from heed.judge.decision import DecisionBackend  # torch

        if settings.base_url is not None:
            raise UserError("judge_base_url: judge_backend: decision runs its model in this process; leave it out")
        return DecisionBackend(settings.model)
    return OpenAIBackend(settings) if settings.backend == "openai" else OllamaBackend(settings)


def judge_responses(
    items: Sequence[JudgedAnswer],
    settings: JudgeSettings,
    folder: Path,
    *,
    people: Path | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Judge all answers, put the verdicts into `folder`, and return the contents of judge_summary.json.

    The system whose answers come last is the one evaluated; pairs compare it with the first. What other judges said
    about the same answers stays, and their agreement is computed again; so is that with `people`, a file of scores or
    votes. Raises UserError for what keeps the judge from judging at all; single failures are counted.
    """
    began = time.perf_counter()
    by_name = group(items)
    pairs = pairs_of(by_name, settings, say)
    opinions = agreement.read_people(people, say=say) if people is not None else None
    score_prompt = load_judge_prompt(settings.prompt, "score") if settings.mode != "pair" else None
    pair_prompt = load_judge_prompt(settings.pair_prompt, "pair") if settings.mode != "score" else None
    evaluated = list(by_name.values())[-1]
    controls = make_controls(evaluated, rows=settings.control_rows, seed=settings.seed)
    asker = Asker(
        open_judge(settings),
        Cache(folder / run_folder.JUDGE_CACHE_FILE, say=say),
        max_tokens=settings.max_tokens,
        prices=Prices(prompt=settings.prices[0], completion=settings.prices[1]) if settings.prices else None,
        max_cost=settings.max_cost,
        say=say,
    )
    scores: list[ScoreVerdict] = []
    compared: list[PairVerdict] = []
    scored = [item for given in by_name.values() for item in given]
    total = (len(scored) + len(controls)) * (score_prompt is not None)
    different = sum(not same(a, b) for a, b in [*pairs, *control_pairs(controls)])
    total += 2 * different * (pair_prompt is not None)
    with Progress(f"judge {Path(settings.model).name}", total, "verdicts") as bar:
        if score_prompt is not None:
            scores = judge_scores(scored, controls, score_prompt, asker, on_done=bar.update)
        if pair_prompt is not None:
            compared = judge_pairs(pairs, controls, pair_prompt, asker, on_done=bar.update)
    entry = summarise(asker, settings, by_name, scores, compared, [score_prompt, pair_prompt], opinions)
    entry["seconds"] = round(time.perf_counter() - began, 1)
    verdicts, entries = merged(folder, entry, [*scores, *compared], say)
    summary = {"judges": entries, "agreement": agreements(verdicts, opinions)}
    run_folder.write_lines(folder / run_folder.JUDGE_FILE, map(asdict, verdicts))
    run_folder.write_json(folder / run_folder.JUDGE_SUMMARY_FILE, summary)
    return summary


def group(items: Sequence[JudgedAnswer]) -> dict[str, list[JudgedAnswer]]:
    """By system, in their order. Raises UserError where there is nothing to judge."""
    by_name: dict[str, list[JudgedAnswer]] = {}
    for item in items:
        by_name.setdefault(item.name, []).append(item)
    if not by_name:
        raise UserError("judge: there are no answers to judge")
    return by_name


def pairs_of(
    by_name: Mapping[str, Sequence[JudgedAnswer]], settings: JudgeSettings, say: Say
) -> list[tuple[JudgedAnswer, JudgedAnswer]]:
    if settings.mode == "score":
        return []
    names = list(by_name)
    first, last = names[0], names[-1]
    if first == last:
        raise UserError(
            f"judge_mode: {settings.mode} compares two systems, and there are answers of {first} only; set "
            "compare_with_base: true, or judge_mode: score"
        )
    pairs = pair_up(by_name[last], by_name[first])
    if not pairs:
        raise UserError(f"judge_mode: {settings.mode}, but {first} and {last} have answered no row in common")
    alone = len(by_name[first]) + len(by_name[last]) - 2 * len(pairs)
    if alone:
        say(f"judge: {count(alone, 'answer')} to rows that only one of {first} and {last} has answered, in no pair")
    return pairs


def summarise(
    asker: Asker,
    settings: JudgeSettings,
    by_name: Mapping[str, Sequence[JudgedAnswer]],
    scores: Sequence[ScoreVerdict],
    compared: Sequence[PairVerdict],
    prompts: Sequence[JudgePrompt | None],
    opinions: tuple[agreement.Opinion, agreement.Opinion] | None,
) -> dict[str, Any]:
    """This judge's part of judge_summary.json."""
    usage = asker.usage
    entry: dict[str, Any] = {
        "judge": asker.judge,
        "server": asker.backend.server,
        "prompt": settings.prompt if scores else settings.pair_prompt,
        "prompts_sha256": {prompt.name: prompt.sha256 for prompt in prompts if prompt is not None},
        "library": f"{LIBRARIES[settings.backend]} {metadata.version(LIBRARIES[settings.backend])}",
        "answers_sha256": answers_hash(by_name),
        "rows": max(map(len, by_name.values())),
        "scores": {},
        "length_correlation": {},
    }
    for name, items in by_name.items():
        given = [verdict for verdict in scores if verdict.name == name and verdict.control is None]
        if given:
            entry["scores"][name] = score_summary(given, opinions[0] if opinions else None)
            entry["length_correlation"][name] = length_correlation(items, given)
    own = [verdict for verdict in compared if verdict.control is None]
    entry["pairs"] = {f"{own[0].a} vs {own[0].b}": pair_summary(own)} if own else {}
    entry["controls"] = check_scores([each for each in scores if each.control is not None]) if scores else None
    entry["pair_controls"] = check_pairs([each for each in compared if each.control is not None]) if own else None
    entry |= asdict(usage)
    entry |= {"cost": asker.cost, "currency_note": CURRENCY_NOTE if settings.prices else None}
    return entry


def answers_hash(by_name: Mapping[str, Sequence[JudgedAnswer]]) -> str:
    """What was judged: verdicts on other answers do not belong beside these."""
    answers = [asdict(item) for name in sorted(by_name) for item in by_name[name]]
    return json_sha256(answers)


def judged_answers(folder: Path) -> str | None:
    """The hash of the answers that a folder's verdicts are about; None where nothing was judged."""
    path = folder / run_folder.JUDGE_SUMMARY_FILE
    judges = run_folder.read_json(path)["judges"] if path.is_file() else []
    return judges[-1]["answers_sha256"] if judges else None


Verdicts = list[ScoreVerdict | PairVerdict]


def merged(folder: Path, entry: dict[str, Any], verdicts: Verdicts, say: Say) -> tuple[Verdicts, list[dict[str, Any]]]:
    """The verdicts and entries of other judges on the same answers, then this one's; what is older is left out."""
    if not (folder / run_folder.JUDGE_SUMMARY_FILE).is_file() or not (folder / run_folder.JUDGE_FILE).is_file():
        return verdicts, [entry]
    earlier = run_folder.read_json(folder / run_folder.JUDGE_SUMMARY_FILE)["judges"]
    mine = said_by(entry)
    kept = [each for each in earlier if judge_of(each) != judge_of(entry) and not said_by(each) <= mine]
    for each in [each for each in kept if each["answers_sha256"] != entry["answers_sha256"]]:
        say(f"judge: what {each['judge']} said with {each['prompt']} was about other answers; left out")
        kept.remove(each)
    others: set[tuple[str, str]] = set().union(*map(said_by, kept)) - mine
    lines = run_folder.read_lines(folder / run_folder.JUDGE_FILE)
    old = [verdict_of(line) for line in lines if (line["judge"], line["prompt"]) in others]
    return [*old, *verdicts], [*kept, entry]


def judge_of(entry: Mapping[str, Any]) -> tuple[str, str]:
    return entry["judge"], entry["prompt"]


def said_by(entry: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The judge with each of its prompts, as the lines of judge.jsonl name them."""
    return {(entry["judge"], prompt) for prompt in entry["prompts_sha256"]}


def agreements(verdicts: Verdicts, people: tuple[agreement.Opinion, agreement.Opinion] | None) -> list[dict[str, Any]]:
    """Every two judges, and every judge and people, on scores and on pairs."""
    scores: dict[str, list[ScoreVerdict]] = {}
    pairs: dict[str, list[PairVerdict]] = {}
    for verdict in verdicts:
        judge = f"{verdict.judge} ({verdict.prompt})"
        if isinstance(verdict, ScoreVerdict):
            scores.setdefault(judge, []).append(verdict)
        else:
            pairs.setdefault(judge, []).append(verdict)
    on_scores = {judge: agreement.scores_of(given) for judge, given in scores.items()}
    on_pairs = {judge: agreement.outcomes_of(given) for judge, given in pairs.items()}
    if people is not None:
        on_scores["people"], on_pairs["people"] = people
    return [
        agreement.agreement(one, other, a=a, b=b, on=on)
        for on, opinions in (("scores", on_scores), ("pairs", on_pairs))
        for (a, one), (b, other) in combinations(opinions.items(), 2)
        if one and other
    ]
