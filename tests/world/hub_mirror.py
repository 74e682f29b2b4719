"""A folder that mirrors the Hub: a few rows of every benchmark under the names and columns its data set has there.

As a command, `python tests/world/hub_mirror.py FOLDER` makes one to try eval_benchmarks.py on without a connection.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Rows = Sequence[Mapping[str, Any]]

SQUAD_METRIC = '''"""SQuAD v2's scores as published, for tests without the Hub: exact match and F1 of tokens."""

import collections
import re
import string

import datasets
import evaluate


def words(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\\b(a|an|the)\\b", " ", text).split()


def f1(gold, answer):
    gold, answer = words(gold), words(answer)
    if not gold or not answer:
        return float(gold == answer)
    same = sum((collections.Counter(gold) & collections.Counter(answer)).values())
    return 2 * same / (len(gold) + len(answer))


class SquadV2(evaluate.Metric):
    def _info(self):
        answers = {"text": [datasets.Value("string")], "answer_start": [datasets.Value("int32")]}
        features = {
            "predictions": {
                "id": datasets.Value("string"),
                "prediction_text": datasets.Value("string"),
                "no_answer_probability": datasets.Value("float32"),
            },
            "references": {"id": datasets.Value("string"), "answers": answers},
        }
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="", features=datasets.Features(features)
        )

    def _compute(self, predictions, references):
        rows = [
            (reference["answers"]["text"] or [""], prediction["prediction_text"])
            for prediction, reference in zip(predictions, references)
        ]
        exact = [max(float(words(gold) == words(text)) for gold in golds) for golds, text in rows]
        overlap = [max(f1(gold, text) for gold in golds) for golds, text in rows]
        scores = {}
        for prefix, chosen in (
            ("", range(len(rows))),
            ("HasAns_", [i for i, (golds, _) in enumerate(rows) if golds != [""]]),
            ("NoAns_", [i for i, (golds, _) in enumerate(rows) if golds == [""]]),
        ):
            if chosen:
                scores[prefix + "exact"] = 100 * sum(exact[i] for i in chosen) / len(chosen)
                scores[prefix + "f1"] = 100 * sum(overlap[i] for i in chosen) / len(chosen)
        return scores | {"best_exact": scores["exact"], "best_f1": scores["f1"]}
'''


def config_names(pattern: str) -> list[str]:
    """The configurations of a data set that lm_eval's own task files name."""
    spec = find_spec("lm_eval")
    assert spec and spec.origin
    found = {
        match[1]
        for path in (Path(spec.origin).parent / "tasks").glob(pattern)
        for match in re.finditer(r'^"?dataset_name"?:\s*"?([^"\n]+?)"?\s*$', path.read_text(), re.MULTILINE)
    }
    return sorted(found)


def put(root: Path, repo: str, configs: Mapping[str, Mapping[str, Rows]]) -> None:
    """Rows in the Hub's own layout: <repo>/<config>/<split>.jsonl and a README.md that lists them."""
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        folder = root / repo / config
        folder.mkdir(parents=True, exist_ok=True)
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            lines += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
    (root / repo / "README.md").write_text("\n".join([*lines, "---", ""]))


def labelled(count: int = 4, labels: int = 2, /, **columns: Any) -> list[dict[str, Any]]:
    return [{**columns, "idx": number, "label": number % labels} for number in range(count)]


def both(rows: Rows) -> dict[str, Rows]:
    return {"train": rows, "validation": rows}


def sums(count: int) -> list[dict[str, Any]]:
    """Questions in MMLU's columns; the right choice moves from row to row."""
    rows = []
    for number in range(1, count + 1):
        choices = [str(2 * number + shift) for shift in (1, 2, 3)]
        choices.insert(number % 4, str(2 * number))
        question = f"What is {number}+{number}?"
        rows.append({"question": question, "subject": "sums", "choices": choices, "answer": number % 4})
    return rows


def put_mmlu(root: Path, subjects: Iterable[str]) -> None:
    splits = {"test": sums(3), "dev": sums(5), "validation": sums(2)}
    put(root, "cais/mmlu", {subject: splits for subject in subjects})


def put_glue(root: Path) -> None:
    entail = labelled(4, 3, premise="It rains.", hypothesis="It is wet.")
    configs: dict[str, Mapping[str, Rows]] = {
        "cola": both(labelled(sentence="The cat sat.")),
        "sst2": both(labelled(sentence="A fine film.")),
        "mrpc": both(labelled(sentence1="A b.", sentence2="B a.")),
        "qnli": both(labelled(question="Who?", sentence="Bob did.")),
        "qqp": both(labelled(question1="Why?", question2="How?")),
        "rte": both(labelled(sentence1="It rains.", sentence2="It is wet.")),
        "wnli": both(labelled(sentence1="He sat.", sentence2="She sat.")),
        "mnli": {"train": entail, "validation_matched": entail, "validation_mismatched": entail},
    }
    put(root, "nyu-mll/glue", configs)


def put_superglue(root: Path) -> None:
    spans: dict[str, Any] = {"span1_index": 0, "span2_index": 4, "span1_text": "Bob", "span2_text": "he"}
    passage = {"passage": "Bob met Ann.\n@highlight\nThey met", "query": "@placeholder left early"}
    places = {"text": ["Bob", "Ann"], "start": [0, 8], "end": [3, 11]}
    records = [
        {**passage, "entities": ["Bob", "Ann"], "answers": [answer], "entity_spans": places, "idx": {"query": number}}
        for number, answer in enumerate(("Bob", "Ann"))
    ]
    answers = [
        {"paragraph": "A b c.", "question": "What?", "answer": "b", "idx": {"answer": number}, "label": number % 2}
        for number in range(4)
    ]
    puzzle: dict[str, Any] = {
        "premise": "The man fell.",
        "choice1": "He was pushed.",
        "choice2": "He ate.",
        "question": "cause",
    }
    word: dict[str, Any] = {"word": "bank", "sentence1": "river bank", "sentence2": "bank account"}
    places_of_word: dict[str, Any] = {"start1": 6, "start2": 0, "end1": 10, "end2": 4}
    configs = {
        "boolq": both(labelled(passage="Cats are animals.", question="are cats animals")),
        "cb": both(labelled(6, 3, premise="It rains.", hypothesis="it is wet")),
        "copa": both(labelled(**puzzle)),
        "multirc": both(answers),
        "record": both(records),
        "rte": both(labelled(premise="It rains.", hypothesis="It is wet.")),
        "wic": both(labelled(**word, **places_of_word)),
        "wsc.fixed": both(labelled(text="Bob met Ann and he smiled.", **spans)),
    }
    put(root, "aps/super_glue", configs)


def put_bbh(root: Path, names: Iterable[str]) -> None:
    options = "Options:\n(A) a\n(B) b\nList: b a"
    rows = [
        {"input": f"not True is\n{options}", "target": "False"},
        {"input": f"not False is\n{options}", "target": "True"},
        {"input": "True and True is", "target": "True"},
        {"input": "True and False is", "target": "False"},
    ]
    put(root, "SaylorTwift/bbh", {name: {"test": rows} for name in names})


def put_bigbench(root: Path, names: Iterable[str]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "idx": number,
            "inputs": f"Q: 1+{number}?\nA:",
            "targets": [str(1 + number)],
            "multiple_choice_targets": [str(1 + number), str(2 + number)],
            "multiple_choice_scores": [1, 0],
        }
        for number in range(3)
    ]
    put(root, "hails/bigbench", {name: {"default": rows} for name in names})


def put_squad(root: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": str(number),
            "title": "Cats",
            "context": "Cats sat on mats.",
            "question": "Who sat?",
            "answers": {"text": ["Cats"], "answer_start": [0]} if number % 2 == 0 else {"text": [], "answer_start": []},
        }
        for number in range(4)
    ]
    put(root, "lighteval/squad_v2", {"squad_v2": both(rows)})
    (root / "squad_v2").mkdir(exist_ok=True)
    (root / "squad_v2" / "squad_v2.py").write_text(SQUAD_METRIC)


def put_triviaqa(root: Path) -> None:
    answer = {"aliases": ["Paris", "paris"], "value": "Paris", "normalized_aliases": ["paris"]}
    rows = [{"question": "Capital of France", "question_id": str(n), "answer": answer} for n in range(4)]
    put(root, "mandarjoshi/trivia_qa", {"rc.nocontext": both(rows)})


HUMANEVAL = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def {name}(a, b):\n    """{doc}"""\n',
        "canonical_solution": f"    return {solution}\n",
        "test": f"def check(candidate):\n    assert candidate(6, 3) == {expected}\n",
        "entry_point": name,
    }
    for number, (name, doc, solution, expected) in enumerate(
        [
            ("add", "The sum.", "a + b", 9),
            ("subtract", "The difference.", "a - b", 3),
            ("times", "Product.", "a * b", 18),
        ]
    )
]


def put_humaneval(root: Path) -> None:
    put(root, "openai/openai_humaneval", {"openai_humaneval": {"test": HUMANEVAL}})


def put_ifeval(root: Path) -> None:
    wanted = {"instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]}
    rows: Rows = [{"key": number, "prompt": "Write in lower case only.", **wanted} for number in range(2)]
    put(root, "google/IFEval", {"default": {"train": rows}})


def whole_mirror(root: Path) -> Path:
    """Every data set that the benchmarks of heed.benchmarks.suite read."""
    put_mmlu(root, config_names("mmlu/default/*.yaml"))
    put_glue(root)
    put_superglue(root)
    put_bbh(root, config_names("bbh/*/*.yaml"))
    put_bigbench(root, config_names("bigbench/*/*.yaml"))
    put_squad(root)
    put_triviaqa(root)
    put_humaneval(root)
    put_ifeval(root)
    return root


if __name__ == "__main__":
    whole_mirror(Path(sys.argv[1]))
