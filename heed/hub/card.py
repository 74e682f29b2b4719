"""The model card: what a run and its evaluation measured, in words, tables and the Hub's own metadata."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from heed.errors import UserError
from heed.files import run_folder
from heed.hub.facts import data_facts, training_facts
from heed.hub.metadata import CARD_FILE, is_hub_id, licence, metadata, on_pairs, run_of, sources, value_of
from heed.hub.outgoing import redact, secrets_of
from heed.measure.comparison import Difference
from heed.report.controls import control_rows, sentence, verdicts
from heed.report.evidence import Evidence, read_evidence
from heed.report.headline import headline
from heed.report.measured import Measured, measured
from heed.report.notices import notices
from heed.report.results import Result, Value, results
from heed.report.words import in_sentence, interval_text, is_wide, label, number, signed
from heed.saying import count

TEMPLATE = Path(__file__).parent / "card.jinja"
SAMPLES = 5
LONGEST_ANSWER = 256  # tokens, in the snippet
LONGEST_TEXT = 600  # characters of a sample; the files of the run have it all
READS_INPUT = re.compile(r"""\.input\b|\[\s*['"]input['"]\s*\]""")


def model_card(run: Path, repo_id: str | None, revision: str | None = None) -> str:
    """README.md of a run's model, metadata first. What looks like a token is taken out of it.

    Where the model goes (`repo_id`, `revision`) is what the run's config says, unless given here. Raises UserError for
    a folder that is not a run, and for files that are damaged.
    """
    if not (run / run_folder.RUN_FILE).is_file():
        raise UserError(f"{run} is not a run folder ({run_folder.RUN_FILE} is missing)")
    evidence = read_evidence(run)
    repo_id = repo_id or value_of(evidence.config, "hub_model_id")
    revision = revision or value_of(evidence.config, "hub_revision") or "main"
    name = (repo_id or run.resolve().name).rpartition("/")[2]
    address = json.dumps(repo_id or str(run)) + ("" if revision == "main" else f", revision={json.dumps(revision)}")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
    shown = values(evidence, measured(evidence), name, address)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(shown)
    text = re.sub(r"\n{3,}", "\n\n", text)
    return redact(f"---\n{metadata(evidence, name).to_yaml()}\n---\n\n{text}", secrets_of())


def write_card(run: Path, repo_id: str | None, revision: str | None = None) -> str:
    text = model_card(run, repo_id, revision)
    with run_folder.whole_file(run / CARD_FILE) as file:
        file.write(text)
    return text


def values(evidence: Evidence, found: Measured, name: str, address: str) -> dict[str, Any]:
    """What the template shows. `address` are the arguments of from_pretrained."""
    evaluation, run, contract = evidence.evaluation or {}, run_of(evidence), evidence.contract or {}
    base, adapter = run["model"], run_folder.is_adapter(evidence.weights)
    shown, sampled = samples(evidence)
    plot = evidence.folder / run_folder.LOSS_PLOT
    return {
        "name": name,
        "summary": summary(evidence, found),
        "adapter": adapter,
        "base": f"[{base}](https://huggingface.co/{base})" if is_hub_id(base) else f"`{base}`",
        "local_base": adapter and not is_hub_id(base),
        "address": address,
        "message": json.dumps(example_message(evidence), ensure_ascii=False),
        "max_new_tokens": evaluation.get("max_new_tokens") or longest_answer(evidence.weights),
        "prompt": run["prompt"],
        "input": input_text(contract.get("template", "")),
        "eos_token": contract.get("eos_token", ""),
        "golden": fenced(contract.get("golden_text", "")),
        "what": what(evaluation) if evaluation else "",
        "rows": count(evaluation.get("n", 0), "row"),
        "systems": evidence.names,
        "compared": evidence.comparison is not None,
        "results": result_lines(evidence, found) if evaluation else [],
        "controls": controls(evidence),
        "benchmarks": [benchmark_line(each) for each in found.benchmarks],
        "notes": [f"{each.title}. {each.text}" for each in notices(evidence, found) if each.grave]
        if evaluation
        else [],
        "remarks": [*seeds_text(evidence), *(evidence.comparison or {}).get("notes", [])],
        "samples": shown,
        "sampled": sampled,
        "plot": plot.name if plot.is_file() else "",
        "training": [(fact, cell(value)) for fact, value in training_facts(evidence)],
        "command": fenced(f"python {run['command']}", "sh"),
        "data": [(fact, cell(value)) for fact, value in data_facts(evidence)],
        "limits": limits(evidence),
    }


def seeds_text(evidence: Evidence) -> list[str]:
    """What the same recipe gave with other seeds, if it was trained with several."""
    compared = evidence.compared
    if compared is None or compared.recipe["seeds"]["ci95"] is None:
        return []
    rows, seeds = compared.recipe["rows"], compared.recipe["seeds"]
    name, wide = in_sentence(label(compared.metric)), is_wide(rows["value"])
    text = f"One of {seeds['n']} seeds of the same recipe: their mean {name} is {number(rows['value'], wide=wide)}"
    for ends, over in ((seeds["ci95"], "seeds"), (rows["ci95"], f"{compared.rows:,} rows")):
        text += f", \N{PLUS-MINUS SIGN} {number((ends[1] - ends[0]) / 2, wide=wide)} over {over}" if ends else ""
    return [f"{text} (95 % intervals)."]


def what(evaluation: Mapping[str, Any]) -> str:
    split = evaluation.get("split")
    return f"The {split} rows of `{evaluation['data']}`" if split else f"`{evaluation['data']}`"


def longest_answer(weights: Path) -> int:
    """Half of the model's positions, as far as is known: an adapter's tokenizer says 1e30 where it does not know."""
    config, tokenizer = (
        run_folder.read_json(path) if path.is_file() else {}
        for path in (weights / "config.json", weights / "tokenizer_config.json")
    )
    known = config.get("max_position_embeddings") or config.get("n_positions") or tokenizer.get("model_max_length")
    return int(min(known or 2 * LONGEST_ANSWER, 2 * LONGEST_ANSWER)) // 2


def input_text(template: str) -> str:
    """How a second text besides the instruction is given under this template."""
    if READS_INPUT.search(re.sub(r"{#.*?#}", "", template, flags=re.DOTALL)):
        return "a user's message may carry `input` besides `content`"
    return "it reads no `input`, so a text that belongs to the instruction follows it after an empty line"


def summary(evidence: Evidence, found: Measured) -> str:
    run = run_of(evidence)
    of_pairs = on_pairs(evidence)
    what, aim = ("pair", "further on what was preferred,") if of_pairs else ("row", "to follow instructions")
    rows = f"{count(run['splits']['train'], what)} of {' and '.join(f'`{source}`' for source in sources(evidence))}"
    how = "with a LoRA adapter" if run_folder.is_adapter(evidence.weights) else f"all {run['parameters']:,} parameters"
    text = f"`{run['model']}`, tuned {aim} on {rows} ({how}) with Heed {run['heed']}."
    if evidence.evaluation and found.primary is not None:
        said = headline(evidence, found.primary)
        text += f" {said.sentence} {said.detail}".rstrip()
    return text


def result_lines(evidence: Evidence, found: Measured) -> list[list[str]]:
    """A row for each metric: of each system value and interval, then how they differ."""
    side_by_side = [each for each in results(evidence, ("judge",)) if each.metric != "judge_score"]
    shown = [*found.metrics, *found.stops, *found.judged, *side_by_side]
    shown += found.parts[:1]  # of a part of the rows the first metric will do; rows.jsonl has all
    return [result_line(each, evidence.names, compared=evidence.comparison is not None) for each in shown]


def controls(evidence: Evidence) -> str:
    """Whether it reads the instruction, in a line."""
    rows = control_rows(evidence)
    return " ".join([sentence(rows), *verdicts(rows).values()]) if rows else ""


def result_line(result: Result, names: Sequence[str], *, compared: bool) -> list[str]:
    about = result.part or (result.task if result.system == "judge" else "")
    line = [cell(f"{result.label}: {about}" if about else result.label), result.counts]
    line += [value_text(result, result.of(name)) for name in names]
    if compared:
        found = result.difference
        line.append(difference_text(result, found))
        counted = found is not None and found.wins is not None
        line.append(f"{found.wins}, {found.ties}, {found.losses}" if found is not None and counted else "")
    return line


def benchmark_line(result: Result) -> list[str]:
    """Base and tuned model, what was gained, and what guessing scores."""
    tuned = next((each for each in reversed(result.values) if each.name != "base"), None)
    n, n_full = (tuned or result.values[-1]).n or 0, result.n_full or 0
    return [
        *map(cell, (result.system, result.task, result.metric, result.settings)),
        f"{n:,}" if n == n_full else f"{n:,} of {n_full:,}",
        value_text(result, result.of("base")),
        value_text(result, tuned),
        difference_text(result, result.difference),
        "" if result.chance is None else number(result.chance, wide=result.wide),
    ]


def value_text(result: Result, value: Value | None) -> str:
    return "" if value is None else result.text(value) + bracketed(value.ci95, wide=result.wide)


def difference_text(result: Result, difference: Difference | None) -> str:
    if difference is None:
        return ""
    text = signed(difference.difference, wide=result.wide)
    return text + bracketed(difference.ci95, wide=result.wide, with_sign=True)


def bracketed(ci95: Sequence[float] | None, *, wide: bool, with_sign: bool = False) -> str:
    return f" [{interval_text(ci95, wide=wide, with_sign=with_sign)}]" if ci95 else ""


def samples(evidence: Evidence) -> tuple[list[str], str]:
    """Rows with their answers, evenly spaced so that nobody has picked the good ones, and how they were chosen."""
    if evidence.evaluation and evidence.responses:
        asked = list(list(evidence.responses.values())[-1].values())
        some = min(SAMPLES, len(asked))
        shown = []
        for row in (asked[place * len(asked) // some] for place in range(some)):
            given = {
                name: rows[row.row_id].model_response for name, rows in evidence.responses.items() if row.row_id in rows
            }
            shown.append(fenced(sample_text(row.instruction, row.input, row.output, given)))
        return shown, f"{some} of {count(len(asked), 'row')}, evenly spaced, not chosen:"
    if evidence.samples:
        last = evidence.samples[-1]
        given = {"answer": last["model_response"]}
        return [fenced(sample_text(last["instruction"], last.get("input", ""), last["output"], given))], (
            "One validation row, after training:"
        )
    return [], ""


def sample_text(instruction: str, input: str, output: str, given: Mapping[str, str]) -> str:
    parts = {"instruction": instruction, **({"input": input} if input else {}), "expected": output, **given}
    width = max(map(len, parts))
    return "\n".join(
        f"{name:<{width}}  {shortened(text)}".replace("\n", "\n" + " " * (width + 2)) for name, text in parts.items()
    )


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " ..."


def example_message(evidence: Evidence) -> dict[str, str]:
    """A question that was really asked, without input."""
    asked = [(row.instruction, row.input) for rows in evidence.responses.values() for row in rows.values()]
    asked += [(row["instruction"], row.get("input", "")) for row in evidence.samples]
    content = next((instruction for instruction, input in asked if not input), "What is the capital of France?")
    return {"role": "user", "content": content}


def limits(evidence: Evidence) -> list[str]:
    evaluation, comparison = evidence.evaluation, evidence.comparison
    found = []
    if evaluation and evaluation["split"]:
        found.append(
            f"It is measured on {count(evaluation['n'], 'row')} of the source that it was trained on; the numbers say "
            "little about other questions."
        )
    if not evaluation:
        found.append("Nobody has measured its answers; the losses alone do not show that it follows instructions.")
    elif not comparison:
        found.append("It has not been compared with the model it started from.")
    worse = len({each["row_id"] for each in (comparison or {}).get("worse", [])})
    if worse:
        found.append(f"On {count(worse, 'row')} it is worse than before by at least one metric.")
    found += [
        f"It has learned one prompt (`{run_of(evidence)['prompt']}`); how it answers to another was not measured.",
        "Nothing was done about false, harmful or biased answers; it repeats what its base and its rows contain.",
    ]
    if licence(evidence) is None:
        found.append("No licence is stated; those of the base model and of the data apply.")
    return found


def cell(text: str) -> str:
    """For a table: one line, and no bar that would end the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def fenced(text: str, language: str = "text") -> str:
    """As it is, whatever it contains: a fence longer than any within."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
