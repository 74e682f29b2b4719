"""Scores of other libraries, checked against values a person can work out, and against the libraries' own."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heed.errors import UserError
from heed.measure.corpus import corpus_estimate, corpus_statistics
from heed.measure.metrics import METRICS, interval, load_metrics
from world.small_world import TINY

ANSWERS = ["the cat sat on the mat", "a dog", "", "", "nothing alike"]
REFERENCES = ["the cat sat on the mat", "the dog barks", "", "a cat", "12345"]


def test_rouge_l_is_the_longest_common_subsequence_of_stems() -> None:
    [found] = METRICS["rougeL"](["the dogs ran home", *ANSWERS[2:4]], ["the dog walks home", *REFERENCES[2:4]])
    # the, dog, home of four words each; both empty; one empty
    assert found.items == (0.75, 1.0, 0.0)
    assert (found.metric, found.n, found.scale) == ("rougeL", 3, 1.0)
    assert found.library.startswith("rouge_score ")


def test_rouge_says_what_it_cannot_read() -> None:
    [found] = METRICS["rougeL"](["кот", "cat"], ["кот", "cat"])
    assert found.items == (0.0, 1.0)
    assert found.notes == ("1 references have no letter a to z and no digit, so they score 0",)


def test_scores_of_answers_are_those_that_the_libraries_give_to_the_last_bit() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF

    random = np.random.default_rng(0)
    words = ["running", "runs", "ran", "a", "dog", "dogs,", "3.5", "(x)", "naïve", "ponies\n", "--", "it's"]
    references, responses = (
        [" ".join(random.choice(words, random.integers(1, 90))) for _ in range(40)] for _ in range(2)
    )
    rouge, bleu = RougeScorer(["rougeL"], use_stemmer=True), BLEU(effective_order=True)
    theirs = {
        "rougeL": lambda ours, wanted: rouge.score(wanted, ours)["rougeL"].fmeasure,
        "bleu": lambda ours, wanted: bleu.sentence_score(ours, [wanted]).score,
        "chrf": lambda ours, wanted: CHRF().sentence_score(ours, [wanted]).score,
    }
    for name, score in theirs.items():
        [found] = METRICS[name](responses, references)
        assert found.items == tuple(map(score, responses, references)), name


@pytest.mark.parametrize("name", ["chrf", "bleu"])
def test_a_corpus_score_is_sacrebleus_own(name: str) -> None:
    import sacrebleu

    [found] = METRICS[name](ANSWERS, REFERENCES)
    theirs = {"chrf": sacrebleu.corpus_chrf, "bleu": sacrebleu.corpus_bleu}[name](ANSWERS, [REFERENCES])
    assert found.value == pytest.approx(theirs.score, abs=1e-9)
    assert found.items is not None and found.items[0] == pytest.approx(100)
    assert found.items[2:4] == (100.0, 0.0)  # both empty, one empty
    assert (found.n, found.scale) == (5, 100.0)
    low, high = interval(found, None) or (0, 0)
    assert low < theirs.score < high
    assert f"version:{sacrebleu.__version__}" in found.details["signature"]


def test_the_interval_is_as_wide_as_sacrebleus_bootstrap() -> None:
    from sacrebleu.metrics import BLEU

    random = np.random.default_rng(0)
    references = [" ".join(random.choice(list("abcdefgh"), 12)) for _ in range(60)]
    responses = [" ".join("x" if random.random() < 0.2 else word for word in each.split()) for each in references]
    [found] = METRICS["bleu"](responses, references)
    theirs = BLEU().corpus_score(responses, [references], n_bootstrap=2000)
    low, high = interval(found, None) or (0, 0)
    assert (high - low) / 2 == pytest.approx(theirs._ci, rel=0.25)  # and never narrower
    assert (high - low) / 2 > theirs._ci


@pytest.mark.parametrize("name", ["chrf", "bleu"])
def test_a_few_answers_that_are_all_right_prove_nothing(name: str) -> None:
    [found] = METRICS[name](["one two three four five"] * 5, ["one two three four five"] * 5)
    low, high = interval(found, None) or (0, 0)
    assert low < 70 and found.value == high == pytest.approx(100)


@pytest.mark.parametrize("name", ["chrf", "bleu"])
def test_two_systems_are_resampled_together(name: str) -> None:
    references = [f"{number} is the number of this row" for number in range(40)]
    responses = [each if number % 2 else "no" for number, each in enumerate(references)]
    statistics = corpus_statistics(name, responses, references)
    same = corpus_estimate(name, statistics, less=statistics)
    assert same.value == 0.0 and same.p == 1.0 and same.ci95 is not None
    assert -15 < same.ci95[0] < 0 < same.ci95[1] < 15  # one more row could be right for one of them alone
    alone = corpus_estimate(name, statistics).ci95
    assert alone is not None and alone[1] - alone[0] > 5  # the difference of two such would be far from sure


def test_bleu_without_four_words_says_so() -> None:
    [found] = METRICS["bleu"](["blue", "red sky"], ["blue", "red"])
    assert found.value == 0.0
    assert found.notes == ("no answer has four words, so BLEU has nothing to count",)


# ---- BERTScore


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A random BERT of twelve words and ten positions, in a folder that states no longest text."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertModel(BertConfig(vocab_size=12, max_position_embeddings=10, **sizes)).save_pretrained(folder)
    return folder


def test_bertscore_runs_on_a_local_encoder(encoder: Path) -> None:
    metric = load_metrics(["bertscore"], bertscore_model=str(encoder), bertscore_num_layers=2)["bertscore"]
    [found] = metric(["a b c", "a b c", "", "", "a " * 50], ["a b c", "d e", "", "a", "a"])
    assert found.items is not None
    same, other, empty, half_empty, long = found.items
    assert same == pytest.approx(1.0, abs=1e-5)
    assert other is not None and other < 0.999
    assert (empty, half_empty) == (1.0, 0.0)
    assert long is not None and found.notes == ("1 texts are longer than the model's 10 positions and were cut",)


def test_models_that_bertscore_cannot_use_are_refused(encoder: Path, tmp_path: Path) -> None:
    def load(model: str | None, layers: int | None = 2) -> None:
        load_metrics(["bertscore"], bertscore_model=model, bertscore_num_layers=layers)

    with pytest.raises(UserError, match="bertscore_model is missing; give the folder of an encoder"):
        load(None)
    with pytest.raises(UserError, match="bertscore_model: nowhere is not the folder of a model"):
        load("nowhere")
    with pytest.raises(UserError, match="is a gpt2 model, which BERTScore cannot embed texts with; give an encoder"):
        load(str(TINY))
    with pytest.raises(UserError, match="bertscore_num_layers is missing: bert_score knows none for a folder named"):
        load(str(encoder), None)
    with pytest.raises(UserError, match="bertscore_num_layers: 3, but the model has 2 layers"):
        load(str(encoder), 3)
    (encoder / "model.safetensors").rename(encoder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no \.safetensors file; pickled weights are not loaded"):
        load(str(encoder))


# ---- modules of `evaluate`

MODULE = """
import datasets
import evaluate


class Module(evaluate.Metric):
    def _info(self):
        texts = datasets.Value("string")
        features = datasets.Features({"predictions": texts, "references": texts})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return RESULT
"""


def module(folder: Path, name: str, result: str) -> str:
    """A user's own module, in a folder as `evaluate` wants it."""
    (folder / name).mkdir()
    (folder / name / f"{name}.py").write_text(MODULE.replace("RESULT", result))
    return str(folder / name)


@pytest.fixture(autouse=True, scope="module")
def modules_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder for all tests, searched first: `evaluate` makes a package of it, which a process imports once."""
    import evaluate.loading

    folder = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] == "evaluate_modules"]:
            patch.delitem(sys.modules, name)  # another test's, from another folder
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder)
        patch.setattr(sys, "path", [folder, *sys.path])
        yield
        for name in [name for name in sys.modules if name.split(".")[0] == "evaluate_modules"]:
            del sys.modules[name]


def test_a_module_of_evaluate_may_return_numbers_for_each_answer(tmp_path: Path) -> None:
    path = module(tmp_path, "same_length", '{"same_length": [float(len(a) == len(b)) for a, b in '
                  'zip(predictions, references)], "hash": "x"}')  # fmt: skip
    [found] = load_metrics([f"evaluate:{path}"])[f"evaluate:{path}"](["ab", "a", ""], ["cd", "cd", ""])
    assert (found.metric, found.items, found.n) == (f"evaluate:{path}", (1.0, 0.0, 1.0), 3)
    assert interval(found, None) is not None and found.notes == ()


def test_a_module_of_evaluate_may_return_one_number_for_all(tmp_path: Path) -> None:
    path = module(tmp_path, "two_numbers", '{"longest": max(map(len, predictions)), "share": float("nan"), "x": "y"}')
    longest, share = load_metrics([f"evaluate:{path}"])[f"evaluate:{path}"](["ab", "a"], ["cd", "cd"])
    assert (longest.metric, longest.value, longest.ci95, longest.items) == (f"evaluate:{path}/longest", 2.0, None, None)
    assert longest.notes == ("the module gives one number for all answers, so there is no interval",)
    assert (share.value, share.notes) == (None, ("the module gave nan",))


def test_a_module_that_is_missing_or_unusable_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate:no_such cannot be loaded .* give the path of its folder"):
        load_metrics(["evaluate:no_such"])
    for name, result, problem in (
        ("wordy", '{"text": "yes"}', "returned no number, but 'text'"),
        ("silent", "None", "returned no number, but nothing"),
        ("other", "float(predictions[0])", "does not take texts"),
    ):
        path = module(tmp_path, name, result)
        metric = load_metrics([f"evaluate:{path}"])[f"evaluate:{path}"]
        with pytest.raises(UserError, match=problem):
            metric(["ab"], ["cd"])


def test_a_config_without_a_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4}))
    with pytest.raises(UserError, match="is a None model"):
        load_metrics(["bertscore"], bertscore_model=str(tmp_path))
