"""Keys of eval_responses.py."""

from dataclasses import dataclass
from typing import Literal

from heed.config.conditions import WORD, either, when
from heed.config.keys import key

# What the words of eval_responses.py read; without a word all of it.
ASKS = (when("responses", None), when(WORD, None, "generate", "compare"))
HERE = (*ASKS, when("engine", is_not="endpoint"))
SERVER = (*ASKS, when("engine", "endpoint"))
SCORES = when(WORD, None, "compare", "score")
JUDGES = when(WORD, None, "compare", "judge")
JUDGED = (JUDGES, when("judge_backend"))


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Keys of eval_responses.py."""

    # what is asked
    model_name_or_path: str | None = key(None, help="a run folder, a checkpoint in it, or any model folder or Hub id")
    model_revision: str | None = key(None, help="branch, tag or commit of a Hub model", read_when=ASKS)
    dtype: Literal["float32", "bfloat16", "float16"] = key("float32", help="type of the weights", read_when=HERE)
    load_in_4bit: bool | None = key(
        None, help="keep the base model in 4 bits; null: as the run was trained", read_when=HERE
    )
    load_in_8bit: bool | None = key(None, help="the same in 8 bits", read_when=HERE)
    prompt: str | None = key(
        None,
        help="only for a model that brings no prompt contract",
        read_when=(*ASKS, either(when("engine", is_not="endpoint"), when("model_name_or_path"))),
    )
    data: str | None = key(None, help="file, folder, URL or Hub id; null: the rows the run set aside", read_when=ASKS)
    columns: dict[str, str] = key(
        {},
        help="our field names -> your columns, as {model_response: theirs} of responses",
        read_when=either(when("data"), when("responses")),
    )
    on_bad_row: Literal["stop", "drop"] = key(
        "stop", help="a malformed row: stop, or drop it", read_when=(*ASKS, when("data"))
    )
    split: Literal["test", "validation", "train"] = key(
        "test", help="which rows of the run to answer", read_when=(*ASKS, when("data", None))
    )
    limit: int | None = key(None, help="answer only the first rows", read_when=ASKS)
    responses: str | None = key(None, help="a responses.json (or .jsonl) to evaluate instead of asking a model")
    output_dir: str | None = key(
        None, help="where responses.json and everything else goes; null: the model's own folder"
    )
    # what it is compared with
    compare_with_base: bool = key(False, help="also answer with the model the run started from", read_when=ASKS)
    compare_with: str | None = key(
        None,
        help="another model to answer the same rows, its responses.json, or its column in responses",
        read_when=either(when("responses"), when(WORD, None, "generate", "compare")),
    )
    forgetting: str | None = key(
        None,
        help="plain text, one text per line, that both models read to show what was lost; null: as the run says, else "
        "data/plain_text.txt",
        read_when=(*HERE, either(when("compare_with_base", True), when("compare_with"), when(WORD, "compare"))),
    )
    # how it answers
    engine: Literal["auto", "batch", "one", "endpoint"] = key(
        "auto",
        help="what writes the answers; the text is the same. endpoint: an OpenAI-compatible server",
        read_when=ASKS,
    )
    batch_size: int | None = key(
        None,
        help="prompts answered at once; null: as many as fit into half of the free memory, 64 at most",
        read_when=HERE,
    )
    max_new_tokens: int = key(256, help="length limit of an answer", read_when=ASKS)
    base_url: str | None = key(None, help="address of the server, usually ending in /v1", read_when=SERVER)
    endpoint_model: str | None = key(
        None, help="the server's name for the model; null: model_name_or_path", read_when=SERVER
    )
    concurrency: int = key(4, help="requests sent at once", read_when=SERVER)
    timeout: float = key(120.0, help="seconds for one answer", read_when=SERVER)
    # whether it reads the instruction
    controls: list[Literal["foreign", "no_input", "shuffled", "case", "polite"]] = key(
        ["foreign", "no_input", "shuffled", "case", "polite"],
        help="how some rows are asked again: with another row's instruction, without input, with shuffled words, in "
        "other case, after a polite preamble; [] for none",
        read_when=ASKS,
    )
    control_rows: int = key(60, help="how many rows are asked again", read_when=ASKS)
    paraphrases: str | None = key(
        None, help="a JSONL of rewordings of your own that are asked too: {instruction, paraphrases}", read_when=ASKS
    )
    # numbers
    metrics: list[str] = key(
        ["exact_match", "normalized_exact_match", "contains", "token_f1", "rougeL", "chrf", "bleu"],
        help="what is measured; also bertscore, and evaluate:NAME_OR_FOLDER",
        read_when=SCORES,
    )
    bertscore_model: str | None = key(
        None, help="folder of an encoder such as BERT", read_when=(SCORES, when("metrics", "bertscore"))
    )
    headline_metric: str | None = key(
        None,
        help="the metric that the verdict is about, or judge_score; null: a judge's score, exact_match or the first, "
        "in this order; the results of the others are adjusted for their number",
        read_when=SCORES,
    )
    cluster: Literal["instruction", "input", "output", "system_prompt"] | None = key(
        None,
        help="a field of the rows: those that share its value count as one draw in every interval; null: those that "
        "ask the same or are near duplicates do",
        read_when=SCORES,
    )
    bertscore_num_layers: int | None = key(
        None, help="the layer that BERTScore compares", read_when=(SCORES, when("metrics", "bertscore"))
    )
    # a judge
    judge_backend: Literal["openai", "ollama", "decision"] | None = key(
        None, help="who judges: an OpenAI-compatible server, Ollama, or a local model; null: nobody", read_when=JUDGES
    )
    judge_model: str | None = key(None, help="the judge's model", read_when=JUDGED)
    judge_base_url: str | None = key(None, help="address of the judge's server", read_when=JUDGED)
    judge_mode: Literal["score", "pair", "both"] = key(
        "score", help="0 to 100 against the reference, or the two systems side by side", read_when=JUDGED
    )
    judge_prompt: str = key(
        "rubric",
        help="rubric, classic, or a .jinja of your own",
        read_when=(*JUDGED, when("judge_mode", "score", "both")),
    )
    judge_pair_prompt: str = key(
        "pair", help="pair, or a .jinja of your own", read_when=(*JUDGED, when("judge_mode", "pair", "both"))
    )
    judge_concurrency: int | None = key(
        None, help="requests at once; null: 4, or 8 on another machine", read_when=JUDGED
    )
    judge_timeout: float = key(120.0, help="seconds for one reply", read_when=JUDGED)
    judge_retries: int = key(4, help="retries after 429, 5xx and time-outs", read_when=JUDGED)
    judge_max_tokens: int = key(512, help="length limit of a reply", read_when=JUDGED)
    judge_control_rows: int = key(5, help="rows whose controls are judged too", read_when=JUDGED)
    judge_prices: list[float] | None = key(
        None, help="[prompt, completion], the price of a million tokens each", read_when=JUDGED
    )
    judge_max_cost: float | None = key(
        None, help="stop before more than this is spent", read_when=(*JUDGED, when("judge_prices"))
    )
    judge_seed: int = key(0, help="seed that chooses the control rows", read_when=JUDGED)
    people: str | None = key(
        None, help="a JSONL of people's scores or votes that the judge is compared with", read_when=JUDGED
    )
