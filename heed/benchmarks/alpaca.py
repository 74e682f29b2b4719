"""AlpacaEval: a judge chooses between the model's answer and a reference, in an order that the library draws."""

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import openai
import yaml

from heed.answers.exports import alpaca_eval_outputs
from heed.answers.responses import Answer
from heed.benchmarks.answers import TEST_ROWS, answer
from heed.benchmarks.asking import Asking, Outcome, Score
from heed.benchmarks.loaded import Loaded
from heed.benchmarks.question import Question, graded_key
from heed.benchmarks.suite import Benchmark
from heed.data.records import Record
from heed.errors import UserError, reason_of
from heed.files import run_folder
from heed.servers.client import Client, LibraryClient, NoReply, Server, openai_address, token_for

REPOSITORY = "tatsu-lab/alpaca_eval"
INSTRUCTIONS = "alpaca_eval_gpt4_baseline.json"
NUMBER_OF_INSTRUCTIONS = 805
DATASET = "heed"  # the library wants a name for it, and does nothing with it
MOST_FAILURES = 0.05
PATIENCE = 120.0  # seconds; a server may have to load its model first
NO_RATE = {"win_rate": math.nan, "standard_error": math.nan}
# The library's own annotators: the first weighs by the probability of its token, the second ranks in words.
WITH_LOGPROBS, WITHOUT_LOGPROBS = "weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4"


@dataclass(frozen=True, kw_only=True)
class Judge:
    """An OpenAI-compatible server and a model on it; the key comes from OPENAI_API_KEY."""

    model: str
    base_url: str | None
    logprobs: bool


def refuse_silent(judge: Judge) -> None:
    """One reply of the judge, before any model is asked. Raises UserError where server, name or key are wrong."""
    address = openai_address(judge.base_url, key="judge_base_url")
    token = token_for(address, key="judge_base_url")

    async def ask() -> None:
        async with Client(Server(base_url=address, token=token, timeout=PATIENCE, retries=0)) as client:
            await client.complete({"model": judge.model, "messages": [{"role": "user", "content": "Say yes."}]})

    try:
        asyncio.run(ask())
    except NoReply as error:
        raise UserError(unanswered(judge, error)) from error


def unanswered(judge: Judge, error: Exception) -> str:
    return (
        f"judge_model: {judge.model} at {judge.base_url or 'OpenAI'} does not answer ({reason_of(error)}); look at "
        "judge_model, judge_base_url, and OPENAI_API_KEY if the server wants a key"
    )


def question(
    asking: Asking,
    benchmark: Benchmark,
    judge: Judge,
    own: Sequence[Record] | None,
    *,
    max_new_tokens: int,
    data_root: Path | None,
) -> Question:
    """Against the references of `own` rows, or against GPT-4 Turbo on AlpacaEval's instructions where that is None."""
    theirs = [] if own is not None else read_reference(data_root)
    records = own if own is not None else instruction_records(theirs)
    asked = records[: asking.limit]

    def ask(loaded: Loaded, key: dict[str, Any], folder: Path) -> Outcome:
        name = TEST_ROWS if own is not None else benchmark.name
        answers = answer(loaded, asked, name=name, max_new_tokens=max_new_tokens)
        return win_rates(
            answers,
            references(answers) if own is not None else theirs[: asking.limit],
            key,
            judge=judge,
            name=loaded.subject.name,
            task=benchmark.name,
            n_full=len(records),
            folder=folder,
            data_root=data_root,
        )

    return Question(
        benchmark=benchmark,
        variant=benchmark.name,
        key=graded_key(
            asking,
            asked,
            max_new_tokens=max_new_tokens,
            data="the run's test rows" if own is not None else REPOSITORY,
            library=library(),
            judge=asdict(judge),
        ),
        library=library(),
        ask=ask,
    )


def library() -> str:
    return f"alpaca_eval {metadata.version('alpaca_eval')}"


def fetch(name: str, data_root: Path | None) -> Path:
    """One of AlpacaEval's files, from the mirror or the Hub. Raises UserError when neither has it."""
    if data_root is not None:
        path = data_root / REPOSITORY / name
        if not path.is_file():
            raise UserError(f"AlpacaEval: {path} is missing; `hf download --repo-type dataset {REPOSITORY} {name}`")
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo_id=REPOSITORY, filename=name, repo_type="dataset"))
    except OSError as error:
        raise UserError(f"AlpacaEval: {name} could not be loaded from the Hub ({str(error)[:200]})") from error


def read_reference(data_root: Path | None) -> list[dict[str, Any]]:
    """AlpacaEval 2's instructions, each with the answer of GPT-4 Turbo."""
    return list(run_folder.read_json(fetch(INSTRUCTIONS, data_root)))


def instruction_records(reference: Sequence[dict[str, Any]]) -> list[Record]:
    """The instructions as rows that a model can be asked."""
    return [
        Record(
            row_id=number,
            place=f"{INSTRUCTIONS}, row {number + 1}",
            messages=(
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["output"]},
            ),
        )
        for number, row in enumerate(reference)
    ]


def references(answers: Sequence[Answer]) -> list[dict[str, str]]:
    """The rows' own outputs as the other side of the comparison."""
    own = [replace(answer, model_response=answer.output) for answer in answers]
    return alpaca_eval_outputs(own, generator="reference", dataset=DATASET)


def annotator(judge: Judge, folder: Path) -> Path:
    """The library's annotator with another model on another server; no key is written. Returns its folder."""
    from alpaca_eval import constants

    chosen = WITH_LOGPROBS if judge.logprobs else WITHOUT_LOGPROBS
    [theirs] = yaml.safe_load((constants.EVALUATORS_CONFIG_DIR / chosen / "configs.yaml").read_text()).values()
    client = folder / "client.yaml"
    ours = {"client_class": f"{LibraryClient.__module__}.{LibraryClient.__qualname__}", "base_url": judge.base_url}
    client.write_text(yaml.safe_dump({"default": [ours]}))
    theirs["prompt_template"] = str(constants.EVALUATORS_CONFIG_DIR / theirs["prompt_template"])
    theirs["completions_kwargs"] |= {
        "model_name": judge.model,
        "requires_chatml": True,
        "client_config_path": str(client),
        "price_per_token": 0.0,  # the library knows OpenAI's prices of 2024 only
    }
    (folder / "configs.yaml").write_text(yaml.safe_dump({f"{chosen}_with_{judge.model}": theirs}))
    return folder


def win_rates(
    answers: Sequence[Answer],
    reference: Sequence[dict[str, Any]],
    key: dict[str, Any],
    *,
    judge: Judge,
    name: str,
    task: str,
    n_full: int,
    folder: Path,
    data_root: Path | None,
) -> Outcome:
    """The share of answers the judge prefers; verdicts are cached in the folder.

    The length-controlled rate is defined for AlpacaEval's own 805 instructions, so it is given only for all of them.
    Raises UserError when the judge gave no verdict on more than one answer in twenty.
    """
    level = logging.getLogger().level
    from alpaca_eval import evaluate, metrics
    from alpaca_eval.utils import convert_to_dataframe

    logging.getLogger().setLevel(level)  # the library has made every other one talkative
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    whole = task == "alpaca_eval" and len(answers) == NUMBER_OF_INSTRUCTIONS
    outputs = alpaca_eval_outputs(answers, generator=name, dataset=DATASET)
    others = [dict(row) for row in reference]
    run_folder.write_json(folder / "model_outputs.json", outputs)
    run_folder.write_json(folder / "reference_outputs.json", others)
    began = time.perf_counter()
    try:
        _, annotations = evaluate(
            model_outputs=outputs,
            reference_outputs=others,
            annotators_config=str(annotator(judge, folder)),
            name=name,
            fn_metric=lambda rows: metrics.get_winrate(rows) if verdicts(rows) else NO_RATE,
            sort_by="win_rate",
            precomputed_leaderboard=None,
            output_path=str(folder),
            caching_path=str(folder / "verdicts.json"),
            is_return_instead_of_print=True,
        )
    except openai.OpenAIError as error:
        raise UserError(f"{unanswered(judge, error)}. Nothing is scored, and the verdicts so far are kept") from error
    known = verdicts(annotations)
    failures = len(outputs) - len(known)
    if failures > MOST_FAILURES * len(outputs):
        raise UserError(
            f"{task}: the judge {judge.model} gave no verdict on {failures} of {len(outputs)} answers, so there is "
            f"no win rate; what it said is in {folder / 'annotations.json'}"
        )
    wins = by_comparison([row | {"won": row["preference"] - 1} for row in known], "won")
    measured = {"win_rate": (metrics.get_winrate(known)["win_rate"] / 100, wins)}
    if whole:
        with files_of(data_root):
            frame = convert_to_dataframe(annotations)
            controlled = metrics.get_length_controlled_winrate(frame, save_weights_dir=None)
        measured["length_controlled_winrate"] = (
            controlled["length_controlled_winrate"] / 100,
            by_comparison(frame.to_dict("records"), "glm_preference"),  # what its model says of answers as long
        )
    notes = [f"judge {judge.model}, annotator {WITH_LOGPROBS if judge.logprobs else WITHOUT_LOGPROBS}"]
    notes += [f"no verdict on {failures} of {len(outputs)} answers"] if failures else []
    if task == "alpaca_eval" and not whole:
        notes.append(f"no length-controlled rate: it is defined for all {NUMBER_OF_INSTRUCTIONS} instructions together")
    ties = sum(ours["output"] == theirs["output"] for ours, theirs in zip(outputs, others, strict=True))
    notes += [f"{ties} of {len(outputs)} answers are the reference word for word: ties, not judged"] if ties else []
    lengths = [len(row["output"]) for row in outputs]
    notes.append(f"answers have {sum(lengths) / len(lengths):.0f} characters on average")
    return Outcome(
        key=key,
        scores=[
            Score(
                task=task,
                metric=metric,
                value=value,
                values=items,
                n=sum(map(len, items.values())),
                n_full=n_full,
                fewshot=0,
                version=INSTRUCTIONS if task == "alpaca_eval" else "own rows",
                higher_is_better=True,
                chance=0.5,
                part_of=None,
            )
            for metric, (value, items) in measured.items()
        ],
        notes=notes,
        seconds=time.perf_counter() - began,
    )


def by_comparison(rows: Sequence[dict[str, Any]], field: str) -> dict[str, list[float]]:
    """By what was compared with: two models may lack verdicts on different answers."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(f"{row['instruction']}\n{row['output_1']}", []).append(float(row[field]))
    return found


def verdicts(annotations: Any) -> list[dict[str, Any]]:
    """The annotations with a preference; the library leaves the others out of its mean silently."""
    from alpaca_eval.utils import convert_to_dataframe

    rows = convert_to_dataframe(annotations).to_dict("records") if len(annotations) else []
    return [row for row in rows if row["preference"] is not None and not math.isnan(row["preference"])]


@contextmanager
def files_of(data_root: Path | None) -> Iterator[None]:
    """While in here, length control takes AlpacaEval's files from the mirror, where there is one."""
    from alpaca_eval.metrics import glm_winrate

    download = glm_winrate.hf_hub_download
    glm_winrate.hf_hub_download = lambda filename, **_: str(fetch(filename, data_root))
    try:
        yield
    finally:
        glm_winrate.hf_hub_download = download
