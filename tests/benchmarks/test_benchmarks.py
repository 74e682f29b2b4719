"""lm_eval's benchmarks on a folder that mirrors the Hub: what knows everything scores 1, what knows nothing 0."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers

pytest.importorskip("lm_eval", reason="make benchmarks-setup installs lm_eval")

from lm_eval import evaluator

from heed.benchmarks import asking as asking_module
from heed.benchmarks import compat, harness, loaded, measuring, scores
from heed.benchmarks.asking import Asking, Outcome, Score
from heed.benchmarks.contract_lm import ContractLM
from heed.benchmarks.harness import Setup
from heed.benchmarks.loaded import Loaded
from heed.benchmarks.suite import BENCHMARKS, Benchmark, find_benchmarks
from heed.benchmarks.tasks import Tasks, in_folder, task_manager
from heed.errors import UserError
from heed.measure.rows import Row
from heed.models.loading import load_tokenizer
from heed.prompts.template import Prompt, load_prompt
from heed.runs.finished import Subject
from world import hub_mirror
from world.oracle import Oracle
from world.small_world import gpt2, save_model

AS_TEXT = Setup(num_fewshot=None, chat_template=False, limit=None)
TEMPLATED = replace(AS_TEXT, chat_template=True)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    hub_mirror.put_mmlu(root, ["anatomy", "astronomy"])
    hub_mirror.put_glue(root)
    hub_mirror.put_superglue(root)
    hub_mirror.put_bbh(root, ["boolean_expressions"])
    hub_mirror.put_bigbench(root, ["arithmetic_zero_shot"])
    hub_mirror.put_squad(root)
    hub_mirror.put_triviaqa(root)
    hub_mirror.put_humaneval(root)
    hub_mirror.put_ifeval(root)
    return root


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without lm_eval's report on the machine, which takes half a second a run; with its own cache of rows."""
    monkeypatch.setattr(evaluator, "add_env_info", lambda results: None)
    with measuring.own_datasets_cache():
        yield


def single(family: str, *tasks: str) -> Benchmark:
    return replace(BENCHMARKS[family], tasks=tasks)


def scored(benchmark: Benchmark, root: Path, *, right: bool) -> list[Score]:
    tasks = Tasks(benchmark, data_root=root)
    return harness.read_scores(tasks, harness.ask(Oracle(right=right), tasks, AS_TEXT))


FAST = [
    ("mmlu", "mmlu_anatomy"),
    ("glue", "sst2"),
    ("superglue", "multirc"),
    ("superglue", "record"),
    ("bbh", "bbh_cot_fewshot_boolean_expressions"),
    ("bigbench", "bigbench_arithmetic_generate_until"),
    ("bigbench", "bigbench_arithmetic_multiple_choice"),
    ("squad", "squadv2"),
    ("triviaqa", "triviaqa"),
    ("ifeval", "ifeval"),
]


@pytest.mark.parametrize(("family", "task"), FAST)
def test_an_oracle_scores_1_and_its_opposite_0(mirror: Path, family: str, task: str) -> None:
    for right in (True, False):
        found = scored(single(family, task), mirror, right=right)
        assert found and {score.value for score in found} == {float(right)}
        assert all(score.n == score.n_full > 1 for score in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, each in BENCHMARKS.items() if each.tasks and name != "humaneval"])
def test_an_oracle_scores_1_and_its_opposite_0_in_every_task(tmp_path: Path, name: str) -> None:
    root = hub_mirror.whole_mirror(tmp_path)
    for right in (True, False):
        found = scored(BENCHMARKS[name], root, right=right)
        # A correlation of labels with their opposites is -1.
        assert {score.value for score in found if score.metric != "mcc"} == {float(right)}
        assert {score.value for score in found if score.metric == "mcc"} <= {1.0 if right else -1.0}
    assert len(found) >= {"mmlu": 62, "glue": 11, "superglue": 10, "bbh": 28, "bigbench": 285}.get(name, 1)


def test_upstream_still_has_multirc_inverted_and_record_broken(mirror: Path) -> None:
    """When this fails, lm_eval or transformers is fixed: delete the override in heed/benchmarks/compat.py."""
    manager = task_manager(single("superglue", "multirc"))
    with in_folder(mirror):
        task = manager.load(["multirc"])["tasks"]["multirc"]
    assert compat.multirc_is_inverted(task)
    if tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 23):
        assert not (Path(transformers.__file__).parent / "data" / "metrics").exists()
    assert compat.fix({"multirc": task}) and not compat.multirc_is_inverted(task)
    assert compat.fix({"multirc": task}) == {}


def test_squads_metrics_are_as_published() -> None:
    assert compat.compute_exact("The Cat.", "cat") == 1
    assert compat.compute_f1("the black cat", "black dog") == pytest.approx(0.5)
    assert compat.compute_f1("", "cat") == 0.0 and compat.compute_f1("", "the") == 1.0


def test_the_commonest_right_answer_is_what_a_constant_one_scores() -> None:
    samples = [{"target": target} for target in (0, 1, 1, 2)]
    assert harness.commonest("acc", samples) == 0.5 and harness.commonest("mcc", samples) is None


def test_chance_is_one_over_the_choices_and_groups_weigh_by_size(mirror: Path) -> None:
    [anatomy] = scored(single("mmlu", "mmlu_anatomy"), mirror, right=True)
    assert (anatomy.chance, anatomy.n_full, anatomy.version) == (0.25, 3, "1.0")
    assert [score.chance for score in scored(single("superglue", "record"), mirror, right=True)] == [None, 0.5]
    [cola] = scored(single("glue", "cola"), mirror, right=True)
    assert (cola.metric, cola.chance) == ("mcc", 0.0)


def test_rows_of_an_edited_mirror_are_the_new_ones(tmp_path: Path) -> None:
    hashes = set()
    for question in ("Capital of France", "Capital of Italy"):
        hub_mirror.put_triviaqa(tmp_path)
        path = tmp_path / "mandarjoshi" / "trivia_qa" / "rc.nocontext" / "validation.jsonl"
        path.write_text(path.read_text().replace("Capital of France", question))
        with measuring.own_datasets_cache():
            tasks = Tasks(BENCHMARKS["triviaqa"], data_root=tmp_path)
            assert tasks.tasks["triviaqa"].eval_docs[0]["question"] == question
            hashes.add(tasks.data_sha256(None))
    assert len(hashes) == 2


# A real model


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prompt]:
    """A random model of few positions, so that its answers are short, and the prompt it is asked with."""
    folder = save_model(tmp_path_factory.mktemp("models") / "model", gpt2(n_positions=160))
    return folder, load_prompt("alpaca_short", load_tokenizer(str(folder)))


def asking(folder: Path, prompt: Prompt, limit: int | None = None) -> Asking:
    return Asking(
        folder=folder,
        prompt=prompt,
        contract=prompt.contract(),
        dtype="float32",
        bits=None,
        batch_size=2,
        limit=limit,
        command="test",
        say=lambda text: None,
    )


def test_a_model_is_asked_with_its_contract_to_the_token(mirror: Path, asked: tuple[Path, Prompt]) -> None:
    _, prompt = asked
    lm = ContractLM(gpt2(), prompt, prompt.contract(), chat_template=True, batch_size=2)
    tasks = Tasks(single("glue", "sst2"), data_root=mirror)
    sample = harness.ask(lm, tasks, TEMPLATED)["samples"]["sst2"][0]
    context, continuation = sample["arguments"][0]
    question = "A fine film.\nQuestion: Is this sentence positive or negative?\nAnswer:"
    messages: list[Any] = [{"role": "user", "content": question}]
    assert context == prompt.render(messages, generation_prompt=True)
    assert context.startswith("Below is an instruction") and context.endswith("### Response:\n")
    assert continuation == "negative"  # no space: the answer is a turn of its own
    assert lm._encode_pair(context, continuation) == (
        prompt.encode_prompt(messages),
        prompt.tokenizer.encode("negative"),
    )


def test_text_that_looks_like_a_control_token_stays_text(asked: tuple[Path, Prompt]) -> None:
    _, prompt = asked
    lm = ContractLM(gpt2(), prompt, prompt.contract(), chat_template=True, batch_size=2)
    messages: list[Any] = [{"role": "user", "content": "What does <|endoftext|> mean?"}]
    text = lm.apply_chat_template(messages)
    assert lm.tok_encode(text) == prompt.encode_prompt(messages)
    assert prompt.eos_token_id not in lm.tok_encode(text)
    begun = lm.apply_chat_template([*messages, {"role": "assistant", "content": "It means"}], False)
    assert begun == text + "It means"


def test_an_answer_gets_the_room_that_the_context_leaves(mirror: Path, asked: tuple[Path, Prompt]) -> None:
    folder, prompt = asked
    outcome = measure(asking(mirror.parent / "room", prompt), folder, BENCHMARKS["humaneval"], mirror)
    assert outcome.scores == []  # nothing is run
    cut, cramped = outcome.notes
    assert cut.startswith("3 of 3 prompts are longer than the model's 160 positions and lost their beginning, up to ")
    assert cramped == "3 of 3 answers had less room in the model's positions than the task allows"
    lm = ContractLM(gpt2(n_positions=256), prompt, prompt.contract(), chat_template=True, batch_size=2)
    long = lm.apply_chat_template([{"role": "user", "content": "word " * 300}])
    sample = {"arguments": [(long, {"until": [], "max_gen_toks": 100})]}
    assert lm.room(long, 100) == 32
    assert lm.tokens_over(sample) == len(lm.tok_encode(long)) + 32 - 256


def measure(how: Asking, model: Path, benchmark: Benchmark, root: Path, setup: Setup = TEMPLATED) -> Outcome:
    with Loaded(how, Subject(name="model", model=str(model))) as subject:
        return measuring.outcome_of(subject, harness.question(Tasks(benchmark, data_root=root), setup))


def test_a_limit_is_stated_in_the_row(mirror: Path, asked: tuple[Path, Prompt], tmp_path: Path) -> None:
    folder, prompt = asked
    question = harness.question(
        Tasks(single("glue", "mrpc"), data_root=mirror), replace(TEMPLATED, limit=2, num_fewshot=1)
    )
    how = asking(tmp_path, prompt, limit=2)

    def rows_of() -> list[Row]:
        with Loaded(how, Subject(name="model", model=str(folder))) as subject:
            return measuring.outcome_rows(how, question, "model", measuring.outcome_of(subject, question), None)

    rows = rows_of()
    found = {row.metric: row for row in rows}
    assert (found["acc"].n, found["acc"].n_full, found["acc"].limit, found["acc"].fewshot) == (2, 4, 2, 1)
    assert (found["acc"].system, found["acc"].chance, found["acc"].chat_template) == ("GLUE", 0.5, True)
    assert found["acc"].library.startswith("lm_eval 0.4") and found["acc"].details["task_version"] == "1.0"
    assert found["f1"].ci95 is None and found["f1"].chance is None  # two items say nothing of an F1
    # What is read back from the folder says the same, correlation and F1 included.
    assert rows_of() == rows
    samples = (tmp_path / "benchmarks" / "model" / question.variant / "samples.jsonl").read_text().splitlines()
    assert len(samples) == 2 and "### Instruction:" in json.loads(samples[0])["prompt"]


def test_nothing_is_measured_twice_and_a_killed_run_continues(
    mirror: Path, asked: tuple[Path, Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, prompt = asked
    rows = [{"question": f"Capital {n}", "question_id": str(n), "answer": {"aliases": ["x"]}} for n in range(6)]
    hub_mirror.put(tmp_path, "mandarjoshi/trivia_qa", {"rc.nocontext": {"train": rows, "validation": rows}})
    calls = []
    generate: Callable[..., Any] = ContractLM._model_generate

    def counted(self: Any, context: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(len(context))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, context, *arguments, **options)

    monkeypatch.setattr(ContractLM, "_model_generate", counted)
    how = asking(tmp_path / "out", prompt)
    with pytest.raises(KeyboardInterrupt):
        measure(how, folder, BENCHMARKS["triviaqa"], tmp_path)
    first = measure(how, folder, BENCHMARKS["triviaqa"], tmp_path)
    assert calls == [2, 2, 2, 2]  # of three batches the first was kept
    monkeypatch.setattr(loaded, "load_subject", lambda *_, **__: pytest.fail("the model is not needed"))
    assert measure(how, folder, BENCHMARKS["triviaqa"], tmp_path) == first
    save_model(folder, gpt2(n_positions=160, n_layer=1))
    with pytest.raises(pytest.fail.Exception):  # other weights are another model
        measure(how, folder, BENCHMARKS["triviaqa"], tmp_path)
    save_model(folder, gpt2(n_positions=160))


def test_a_models_weights_are_hashed_and_loaded_once_for_all_benchmarks(
    mirror: Path, asked: tuple[Path, Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, prompt = asked
    calls = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return function(*arguments, **options)

        return call

    for owner, name in ((asking_module, "model_sha256"), (loaded, "load_subject")):
        monkeypatch.setattr(owner, name, counted(name, getattr(owner, name)))
    options = measuring.Options(
        templates=[True, False], num_fewshot=None, max_new_tokens=4, judge=None, helm_entries=[], data_root=mirror
    )
    how = asking(tmp_path, prompt, limit=1)
    subjects = [Subject(name="base", model=str(folder)), Subject(name="tuned", model=str(folder))]
    benchmarks = [single("glue", "sst2"), single("mmlu", "mmlu_anatomy")]
    rows = [row for found in measuring.measure(how, subjects, benchmarks, options, []) for row in found]
    assert calls == ["model_sha256", "load_subject"] * 2
    assert [(row.name, row.task, row.chat_template) for row in rows] == [
        (name, task, template)
        for name in ("base", "tuned")
        for task in ("sst2", "mmlu_anatomy")
        for template in (True, False)
    ]
    assert [row.details.get("difference_from_base", {}).get("value") for row in rows] == [None] * 4 + [0.0] * 4


def test_an_adapter_is_asked_with_its_base(asked: tuple[Path, Prompt], mirror: Path, tmp_path: Path) -> None:
    from heed.models.adapters import Adapter, add_adapter

    folder, prompt = asked
    model = gpt2(n_positions=160)
    model.name_or_path = str(folder)
    adapted = add_adapter(model, Adapter(rank=2, alpha=4, dropout=0.0, target_modules=None))
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    adapted.save_pretrained(tmp_path / "adapter")
    outcome = measure(asking(tmp_path, prompt), tmp_path / "adapter", single("mmlu", "mmlu_anatomy"), mirror)
    assert [score.n for score in outcome.scores] == [3]


# Numbers


def a_score(value: float, values: dict[str, list[Any]], metric: str = "acc") -> Score:
    return Score(
        task="t",
        metric=metric,
        value=value,
        values=values,
        n=sum(map(len, values.values())),
        n_full=9,
        fewshot=0,
        version="1",
        higher_is_better=True,
        chance=None,
        part_of=None,
    )


def test_differences_are_paired_by_item() -> None:
    base = a_score(0.25, {"t": [0, 1, 0, 0]})
    tuned = a_score(0.75, {"t": [1, 1, 1, 0]})
    gained = scores.difference(tuned, base, None)
    assert gained is not None and gained.value == 0.5 and gained.n == 4
    assert (
        gained.ci95 is not None and gained.ci95[0] < 0 < gained.ci95[1]
    )  # two of four got better: that proves nothing
    assert scores.difference(tuned, a_score(1.0, {"t": [1]}), None) is None


def test_many_tasks_have_a_mean_in_which_each_counts_the_same() -> None:
    parts = [replace(a_score(float(n % 2), {f"t{n}": [n % 2] * (n + 1)}), task=f"t{n}", chance=0.5) for n in range(20)]
    mean = scores.mean_of_tasks(parts, name="bigbench", metric="acc")
    assert mean is not None and (mean.value, mean.chance, mean.note) == (0.5, 0.5, "unweighted mean of 20 tasks")
    estimate = scores.estimate(mean, None)
    assert estimate.value == 0.5 and estimate.ci95 == pytest.approx((0.40, 0.61), abs=0.01)
    led = scores.with_family_means(BENCHMARKS["bigbench"], parts)
    assert [(each.task, each.part_of) for each in led[:2]] == [("bigbench", None), ("t0", "bigbench")]
    assert scores.with_family_means(BENCHMARKS["glue"], parts[:19]) == parts[:19]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "tasks is empty; choose from mmlu, glue"),
        (["mmlu", "mmlu"], "mmlu is given twice"),
    ],
)
def test_names_are_checked(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_benchmarks(names)


def test_a_missing_scorer_is_noticed_before_answers_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setattr("nltk.download", lambda name: False)
    sys.modules.pop("lm_eval.tasks.ifeval.instructions_util", None)  # which fetches when it is imported
    sentences = {"instruction_id_list": ["length_constraints:number_sentences"]}
    row = {"key": 1, "prompt": "Be brief.", **sentences, "kwargs": [{"num_sentences": 3, "relation": "less than"}]}
    hub_mirror.put(tmp_path, "google/IFEval", {"default": {"train": [row]}})
    with pytest.raises(UserError, match=r"IFEval: some .* nltk's punkt_tab, .* `python -m nltk\.downloader punkt_tab`"):
        Tasks(BENCHMARKS["ifeval"], data_root=tmp_path)
    assert "Downloaded" not in capsys.readouterr().out
    hub_mirror.put_squad(tmp_path)
    (tmp_path / "squad_v2" / "squad_v2.py").unlink()
    with pytest.raises(UserError, match=r"SQuAD v2: the module squad_v2 of evaluate"):
        Tasks(BENCHMARKS["squad"], data_root=tmp_path)


def test_absent_data_are_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"TriviaQA: its data could not be loaded .*; give a folder that mirrors"):
        Tasks(BENCHMARKS["triviaqa"], data_root=tmp_path)
