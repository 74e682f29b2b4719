"""Scores as other libraries compute them, each imported when asked for: ROUGE, BERTScore, `evaluate`."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from heed.errors import UserError, reason_of
from heed.files import run_folder
from heed.measure.intervals import range_of
from heed.measure.measurements import Measurement, library, mean_measurement
from heed.measure.words import Texts, chained, settled, word_by_word
from heed.shipped import setup

SETUP = f"`{setup('eval')}` installs it"


# ---- ROUGE


def rouge_l(responses: Texts, references: Texts) -> list[Measurement]:
    """ROUGE-L's F measure with Porter's stemmer. Only a to z and digits make words for it."""
    from rouge_score.scoring import fmeasure

    written, wanted = (list(map(rouge_words(), side)) for side in (responses, references))

    def score(ours: Sequence[str], theirs: Sequence[str]) -> float:
        if not ours or not theirs:
            return 0.0
        common = common_words(ours, theirs)
        return float(fmeasure(common / len(ours), common / len(theirs)))

    items = settled(responses, references, map(score, written, wanted), best=1.0)
    blind = sum(bool(reference.strip()) and not words for reference, words in zip(references, wanted, strict=True))
    notes = (f"{blind} references have no letter a to z and no digit, so they score 0",) if blind else ()
    return [mean_measurement("rougeL", items, library=library("rouge_score"), notes=notes)]


@cache
def rouge_words() -> Callable[[str], list[str]]:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.tokenize import tokenize

    stemmer = PorterStemmer()
    stemmer.stem = cache(stemmer.stem)
    return word_by_word(partial(tokenize, stemmer=stemmer), chained)


def common_words(these: Sequence[str], those: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the table at once as the bits of a number (Hyyro 2004).

    rouge_score fills the table cell by cell, which took minutes for thousands of long answers.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(these):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(these)) - 1
    row = every
    for there in filter(None, map(places.get, those)):  # a word that is not in `these` changes nothing
        equal = row & there
        row = row + equal | row - equal  # may grow longer; what is added in front is in nobody's places
    return len(these) - (row & every).bit_count()


# ---- BERTScore

ENCODERS = "an encoder such as roberta-large or bert-base-uncased"


def load_bertscore(model: str | None, num_layers: int | None) -> Callable[[Texts, Texts], list[Measurement]]:
    """Raises UserError for a model that is not an encoder in a folder with safetensors."""
    if model is None:
        raise UserError(f"bertscore_model is missing; give the folder of {ENCODERS}")
    folder = Path(model)
    if find_spec("bert_score") is None:
        raise UserError(f"metrics: bertscore needs the package bert-score; {SETUP}")
    if not (folder / "config.json").is_file():
        raise UserError(f"bertscore_model: {model} is not the folder of a model; give that of {ENCODERS}")
    config = run_folder.read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in KINDS:
        raise UserError(
            f"bertscore_model: {model} is a {kind} model, which BERTScore cannot embed texts with; give {ENCODERS}"
        )
    if "t5" in model or model.startswith("scibert"):
        raise UserError(f"bertscore_model: bert_score takes {model} for another model by its path; rename the folder")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"bertscore_model: {model} has no .safetensors file; pickled weights are not loaded")
    layers = config["num_hidden_layers"] if "num_hidden_layers" in config else config["n_layers"]
    return partial(bertscore, model, bertscore_layers(folder.resolve().name, num_layers, layers), config)


# model_type -> how many of its positions no token can have
KINDS = {"bert": 0, "distilbert": 0, "electra": 0, "roberta": 2, "camembert": 2, "xlm-roberta": 2}


def bertscore_layers(name: str, asked: int | None, layers: int) -> int:
    """Raises UserError where nobody has said which layer's embeddings to compare."""
    from bert_score.utils import model2layers

    if asked is None:
        asked = model2layers.get(name)
    if asked is None:
        raise UserError(
            f"bertscore_num_layers is missing: bert_score knows none for a folder named {name} (it has {layers} "
            "layers; roberta-large is used up to 17 of 24, bert-base-uncased up to 9 of 12)"
        )
    if not 1 <= asked <= layers:
        raise UserError(f"bertscore_num_layers: {asked}, but the model has {layers} layers")
    return asked


def bertscore(
    model: str, num_layers: int, config: Mapping[str, Any], responses: Texts, references: Texts
) -> list[Measurement]:
    """BERTScore's F, not rescaled: unlike texts score far above 0, so it only compares systems."""
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=model, num_layers=num_layers)
    tokenizer = scorer._tokenizer  # it cuts at model_max_length, which a user's folder need not state
    limit = config["max_position_embeddings"] - KINDS[config["model_type"]]
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
    pairs = [each for each in zip(responses, references, strict=True) if all(map(str.strip, each))]
    scores: dict[tuple[str, str], float] = {}
    if pairs:
        _, _, f = scorer.score([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
        scores = dict(zip(pairs, f.tolist(), strict=True))
    found = (scores.get(each, 0.0) for each in zip(responses, references, strict=True))
    items = settled(responses, references, found, best=1.0)
    cut = sum(len(tokenizer.tokenize(text)) > limit - 2 for text in (*responses, *references))
    notes = (f"{cut} texts are longer than the model's {limit} positions and were cut",) if cut else ()
    return [
        mean_measurement(
            "bertscore",
            items,
            within=(-1.0, 1.0),
            library=library("bert_score"),
            notes=notes,
            details={"model": model, "num_layers": num_layers, "hash": scorer.hash},
        )
    ]


# ---- modules of `evaluate`


def load_module(name: str) -> Callable[[Texts, Texts], list[Measurement]]:
    """A module of the `evaluate` library, which is Python code that is run: the Hub's own by name, or a folder's.

    Raises UserError when it cannot be loaded.
    """
    import evaluate

    try:
        module = evaluate.load(name, keep_in_memory=True)
    except (OSError, ImportError, ValueError) as error:
        raise UserError(
            f"metrics: evaluate:{name} cannot be loaded ({reason_of(error)}). By name it comes from the "
            "Hub, which needs the network or an earlier download; without, give the path of its folder or .py file"
        ) from error
    return partial(module_score, name, module)


def module_score(name: str, module: Any, responses: Texts, references: Texts) -> list[Measurement]:
    """What a module returns: a list of a number for each answer becomes items, a number is taken as it is.

    The key with the module's own name if there is one, else each key that is a number.
    """
    metric = f"evaluate:{name}"
    try:
        result = module.compute(predictions=list(responses), references=list(references))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"metrics: {metric} does not take texts ({reason_of(error)})") from error
    own = Path(name).stem
    numbers = {key: value for key, value in (result or {}).items() if is_number(value) or items_of(value, responses)}
    if not numbers:
        raise UserError(f"metrics: {metric} returned no number, but {', '.join(map(repr, result or {})) or 'nothing'}")
    chosen = {metric: numbers[own]} if own in numbers else {f"{metric}/{key}": each for key, each in numbers.items()}
    return [module_measurement(key, value, responses) for key, value in chosen.items()]


def module_measurement(metric: str, value: Any, responses: Texts) -> Measurement:
    items = items_of(value, responses)
    if items is not None:
        within = range_of([item for item in items if item is not None])
        return mean_measurement(metric, items, within=within, library=library("evaluate"))
    value = float(value)
    notes = ("the module gives one number for all answers, so there is no interval",)
    if not math.isfinite(value):
        notes = (f"the module gave {value}",)
    return Measurement(
        metric=metric,
        value=value if math.isfinite(value) else None,
        n=len(responses),
        items=None,
        library=library("evaluate"),
        notes=notes,
    )


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def items_of(value: Any, responses: Texts) -> list[float | None] | None:
    """A list with a number for each answer, otherwise None."""
    if isinstance(value, list | tuple | np.ndarray) and len(value) == len(responses) and all(map(is_number, value)):
        return [float(each) if math.isfinite(each) else None for each in value]
    return None
