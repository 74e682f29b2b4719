"""Where the numbers come from and what they cost: plain facts, in the order a reader asks for them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from heed.data.sources import locations
from heed.report.controls import control_rows
from heed.report.evidence import Evidence
from heed.report.words import epochs_text
from heed.saying import count, duration


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A name and what is known of it; `code` is for what one might copy."""

    name: str
    value: str
    code: bool = False


def provenance(evidence: Evidence) -> dict[str, list[Fact]]:
    """Heading -> facts."""
    found: dict[str, list[Fact]] = {}
    if evidence.evaluation is not None:
        found["Evaluation"] = evaluation_facts(evidence.evaluation)
    for judge in evidence.judges:
        found[f"Judge {judge['judge']}, {judge['prompt']}"] = judge_facts(judge)
    if evidence.run is not None:
        found["Training"] = training_facts(evidence.run, evidence)
    return found


def evaluation_facts(asked: dict[str, Any]) -> list[Fact]:
    """Answers that another tool wrote leave open how they came about."""
    facts = [Fact(name=name, value=model_text(system), code=True) for name, system in asked["systems"].items()]
    limit = f", limit {asked['limit']}" if asked["limit"] is not None else ""
    rows = f"{asked['n']:,} of {asked['n_full']:,}" + (f" ({asked['split']}{limit})" if asked["split"] else limit)
    facts += [
        Fact(name="Data", value=asked["data"], code=True),
        Fact(name="Rows", value=rows),
        Fact(name="Data SHA-256", value=asked["data_sha256"], code=True),
    ]
    if asked["prompt"] is not None:
        facts.append(Fact(name="Prompt", value=asked["prompt"], code=True))
    if asked["contract"] is not None:
        facts.append(Fact(name="Contract", value=asked["contract"], code=True))
    if asked["engine"] is not None:
        text = f"engine {asked['engine']}, at most {asked['max_new_tokens']} new tokens, greedy"
        facts += [Fact(name="Answers", value=text), Fact(name="Device", value=asked["device"])]
    seconds = f", {duration(asked['seconds'])}" if asked["seconds"] is not None else ""
    facts += [
        Fact(name="Time", value=asked["time"] + seconds),
        Fact(name="Versions", value=versions_text({"heed": asked["heed"]} | asked["versions"])),
        Fact(name="Command", value=asked["command"], code=True),
    ]
    return facts


def judge_facts(judge: dict[str, Any]) -> list[Fact]:
    return [
        Fact(name="Server and model", value=judge["server"], code=True),
        Fact(name="Library", value=judge["library"]),
        *(
            Fact(name=f"SHA-256 of prompt {name}", value=digest, code=True)
            for name, digest in judge["prompts_sha256"].items()
        ),
    ]


def training_facts(run: dict[str, Any], evidence: Evidence) -> list[Fact]:
    """A run that was stopped early knows less of itself than a finished one."""
    facts = [Fact(name="Model", value=model_text(run), code=True)]
    if run.get("parameters"):
        trained = run.get("trained_parameters", run["parameters"])
        share = "all of them trained" if trained == run["parameters"] else f"{trained:,} trained"
        facts.append(Fact(name="Parameters", value=f"{run['parameters']:,}, {share}"))
    if data := run.get("data"):
        facts.append(Fact(name="Data", value=", ".join(locations(data["source"])), code=True))
        facts.append(Fact(name="Rows", value=f"{data['rows']:,} ({data['format']}), {data['rejected']:,} rejected"))
        facts.append(Fact(name="Rows SHA-256", value=data["rows_sha256"], code=True))
        facts += [Fact(name=f"SHA-256 of {file}", value=digest, code=True) for file, digest in data["files"].items()]
    if splits := run.get("splits"):
        facts.append(Fact(name="Splits", value=", ".join(f"{name} {count:,}" for name, count in splits.items())))
    if "steps" in run:
        facts.append(Fact(name="Length", value=f"{count(run['steps'], 'step')}, {epochs_text(run['epochs'])}"))
    if run.get("kept"):
        facts.append(Fact(name="Weights kept", value=run["kept"]))
    if "device" in run:
        facts.append(Fact(name="Device", value=f"{run['device']}, {count(run['processes'], 'process', 'processes')}"))
    ends = [run[key] for key in ("started", "finished") if run.get(key)]
    facts.append(Fact(name="Time", value=" to ".join(ends)))
    facts.append(Fact(name="Versions", value=versions_text({"heed": run["heed"]} | run["versions"])))
    facts.append(Fact(name="Command", value=run["command"], code=True))
    return facts


def model_text(system: dict[str, Any]) -> str:
    revision = system.get("revision") or system.get("model_revision")
    return system["model"] + (f" at {revision}" if revision else "")


def versions_text(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a piece of work took. A field is None where nothing counted it."""

    what: str
    requests: int | None
    tokens_in: int | None
    tokens_out: int | None
    seconds: float | None
    cost: str

    @property
    def time(self) -> str:
        return duration(self.seconds) if self.seconds is not None else ""


def spending(evidence: Evidence) -> list[Spending]:
    found = []
    ended = [log for log in evidence.losses if "total_flos" in log]
    if ended:
        tokens = ended[-1].get("num_input_tokens_seen")
        # What Trainer logs is the time of its last start.
        seconds = (evidence.run or {}).get("seconds_of_all_starts", ended[-1].get("train_runtime"))
        found.append(
            Spending(what="Training", requests=None, tokens_in=tokens, tokens_out=None, seconds=seconds, cost="")
        )
    for name, answers in evidence.responses.items():
        rows = answers.values()
        found.append(
            Spending(
                what=f"Answers of {name}",
                requests=len(answers),
                tokens_in=total(each.prompt_tokens for each in rows),
                tokens_out=total(each.response_tokens for each in rows),
                seconds=total(each.seconds for each in rows),
                cost="",
            )
        )
    if asked := [row for row in control_rows(evidence) if row.details.get("answers")]:
        found.append(
            Spending(
                what="Controls",
                requests=sum(row.details["answers"] for row in asked),
                tokens_in=None,
                tokens_out=None,
                seconds=total(row.seconds for row in asked),
                cost="",
            )
        )
    for judge in evidence.judges:
        cost = "no price known" if judge["cost"] is None else f"{judge['cost']:.2f}"
        note = f" ({judge['currency_note']})" if judge["cost"] is not None and judge.get("currency_note") else ""
        found.append(
            Spending(
                what=f"Judge {judge['judge']}, {judge['cached']:,} from the cache",
                requests=judge["requests"],
                tokens_in=judge["prompt_tokens"],
                tokens_out=judge["completion_tokens"],
                seconds=judge["seconds"],
                cost=cost + note,
            )
        )
    return found


def total(values: Iterable[float | None]) -> Any:
    """The sum over all answers, or None where some do not say."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def rejected(evidence: Evidence) -> list[tuple[str, int]]:
    """Rows that were not learned from, not whole, or not as one conversation, by reason."""
    reasons = Counter(reason for row in evidence.rejected for reason in row["reasons"])
    counts = [(f"Left out: {reason}", count) for reason, count in reasons.most_common()]
    words = {
        "too_long": "Left out: longer than max_length",
        "cut_prompt": "Shortened: the beginning of the prompt was cut off",
        "cut_response": "Shortened: the end of the response and its EOS were cut off",
        "apart_history": "Learned separately: the template shows earlier turns differently from how they were learned",
        "apart_tokens": "Learned separately: earlier turns have other tokens in the next prompt",
    }
    for split, encoded in ((evidence.run or {}).get("encoded") or {}).items():
        counts += [(f"{text} ({split})", encoded[key]) for key, text in words.items() if encoded.get(key)]
    return counts


def contract(evidence: Evidence) -> dict[str, Any] | None:
    """The prompt contract, with its example split into what the model is given and what it learns to say."""
    known = evidence.contract
    if known is None:
        return None
    text, answer = known["golden_text"], known["golden_messages"][-1]["content"]
    place = text.rfind(answer)
    return known | {"example_prompt": text[:place], "example_response": text[place:]} if place >= 0 else known
