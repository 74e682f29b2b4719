"""Whether pairs should be learned from: what was found in them, compared with thresholds as rows are."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heed.answers.subjects import find_prompt
from heed.arena.votes import JUDGE
from heed.audit.cleaning import Cleaned, as_line
from heed.audit.duplicates import fingerprint
from heed.audit.findings import Finding, Kind, finding_lines, measured
from heed.audit.overlap import questions
from heed.data.records import asked, normalized
from heed.data.rows import left_out, notes
from heed.data.sources import Source, pieces, raw_rows
from heed.errors import UserError
from heed.files.run_folder import whole_file
from heed.measure.intervals import share_interval
from heed.measure.lengths import length
from heed.preferences.pairs import Pair, Pairs
from heed.runs.held_out import HeldOut, held_out
from heed.saying import count

FEWEST_WORDS = 3  # a shorter answer may well stand in its prompt
NEARLY_ALWAYS = 0.8  # of the pairs, at the near end of the interval
PLACES_SHOWN = 20
VOTERS_SHOWN = 5
KINDS = {
    name: Kind(meaning=meaning, threshold=threshold, among="pairs")
    for name, threshold, meaning in (
        ("bad_pair", 0.05, "cannot be read as a pair"),
        ("duplicate", 0.02, "the same as an earlier pair"),
        ("contradiction", 0.05, "an earlier pair prefers the other of the same two answers"),
        ("answer_in_prompt", 0.05, "an answer stands word for word in its prompt"),
        ("held_out", 0.0, "about a row or a question that the run is evaluated on"),
    )
} | {"contaminated": Kind(meaning="a pair gives the question away", threshold=0.01, among="held-out rows")}


@dataclass(frozen=True, kw_only=True)
class PairAudit:
    """`facts` are lines for a person; `findings` stop as those of rows do."""

    facts: list[str]
    findings: list[Finding]
    reasons: dict[str, list[str]]
    """Why `export` leaves pairs out, by their places."""

    def __str__(self) -> str:
        return "\n".join([*self.facts, "", *finding_lines(self.findings)])


def audit(pairs: Pairs, run: Path | None, changes: Mapping[str, float], allow: Sequence[str]) -> PairAudit:
    """With a `run` also what it is evaluated on, and lengths in its tokens.

    Raises UserError for a name that no finding has, and for a folder that is no run's.
    """
    evaluated = held_out(run) if run is not None else None
    reasons: dict[str, list[str]] = defaultdict(list)
    found = flaws(pairs, reasons) | (given_away(pairs.pairs, evaluated, reasons) if evaluated is not None else {})
    findings = measured(found, changes, allow, KINDS)
    prompts = len({asked(pair.prompt) for pair in pairs.pairs})
    facts = [f"audit of {count(len(pairs.pairs), 'pair')} on {count(prompts, 'prompt')}"]
    facts += [*left_out(pairs.rejected, len(pairs.rejected)), *notes((), pairs.ignored_fields)]
    facts += [f"decided   {decided(pairs.pairs)}", *agreement(pairs.pairs)]
    facts += characters(pairs.pairs)
    if run is not None:
        facts += tokens(pairs.pairs, run)
    if evaluated is not None and evaluated.unread:
        facts.append(f"held out  known by the numbers of rows alone: {evaluated.unread}")
    return PairAudit(facts=facts, findings=findings, reasons=reasons)


def export(path: Path, source: Source, reasons: Mapping[str, list[str]]) -> Cleaned:
    """Write the pairs as they stand in the source, and those left out with their reasons as `PATH.rejected.jsonl`.

    Raises UserError when no pair is left.
    """
    rejected_file, kept = path.with_name(path.name + ".rejected.jsonl"), 0
    with whole_file(rejected_file) as bad, whole_file(path) as good:
        for row in raw_rows(pieces(source)):
            if row.place in reasons:
                bad.write(as_line({"place": row.place, "reasons": reasons[row.place], "value": row.value}))
            else:
                kept += 1
                good.write(as_line(row.value))
        if not kept:
            raise UserError("export: no pair is left")
    return Cleaned(kept=kept, left_out=len(reasons), rejected_file=rejected_file)


def flaws(pairs: Pairs, reasons: dict[str, list[str]]) -> dict[str, tuple[int, int, list[str]]]:
    """What can be seen in the pairs themselves, as `findings.measured` takes it; adds to `reasons`."""
    reasons |= {row.place: row.reasons for row in pairs.rejected}
    bad = [f"{row.place}: {'; '.join(row.reasons)}" for row in pairs.rejected]
    places: dict[str, list[str]] = {"duplicate": [], "contradiction": [], "answer_in_prompt": []}
    first: dict[tuple[str, str, str], str] = {}
    for pair in pairs.pairs:
        question, chosen, rejected = normalized(asked(pair.prompt)), pair.chosen.strip(), pair.rejected.strip()
        if earlier := first.get((question, rejected, chosen)):
            places["contradiction"].append(f"{pair.place}, against {earlier}")
        if (earlier := first.setdefault((question, chosen, rejected), pair.place)) is not pair.place:
            places["duplicate"].append(f"{pair.place}, like {earlier}")
            reasons[pair.place].append(f"duplicate of {earlier}")
        given = [name for name, text in (("chosen", chosen), ("rejected", rejected)) if stands_in(text, question)]
        if given:
            places["answer_in_prompt"].append(f"{pair.place}, {' and '.join(given)}")
    total = len(pairs.pairs)
    return {"bad_pair": (len(bad), total + len(bad), bad[:PLACES_SHOWN])} | {
        name: (len(found), total, found[:PLACES_SHOWN]) for name, found in places.items()
    }


def stands_in(answer: str, question: str) -> bool:
    return length(answer) >= FEWEST_WORDS and normalized(answer).rstrip(".!?") in question


def given_away(
    pairs: Sequence[Pair], evaluated: HeldOut, reasons: dict[str, list[str]]
) -> dict[str, tuple[int, int, list[str]]]:
    """Pairs about what a run is evaluated on, and held-out rows that stand in a pair on no row of the run."""
    places, known, rows = [], dict[int, str](), questions(evaluated.records)
    for pair in pairs:
        question = asked(pair.prompt)
        if evaluated.splits_of(pair.row_id, question):
            places.append(pair.place)
            reasons[pair.place].append("held_out")
        elif pair.row_id not in evaluated.known["train"]:
            hits = rows.known_to(f"{question}\n{pair.chosen}\n{pair.rejected}", fingerprint(normalized(question)))
            if len(hits):
                reasons[pair.place].append("contaminated")
            known |= {row_id: pair.place for row_id in rows.row_ids[hits].tolist() if row_id not in known}
    examples = [f"row {row_id + 1}, in {place}" for row_id, place in sorted(known.items())]
    return {
        "held_out": (len(places), len(pairs), places[:PLACES_SHOWN]),
        "contaminated": (len(known), len(evaluated.records), examples[:PLACES_SHOWN]),
    }


def decided(pairs: Sequence[Pair]) -> str:
    """How many pairs people and judges stand for, and who they are."""
    kinds = Counter(kind_of_voters(pair.voters) for pair in pairs)
    voters = Counter(voter for pair in pairs for voter in pair.voters).most_common()
    named = [f"{voter} {number:,}" for voter, number in voters[:VOTERS_SHOWN]]
    named += [f"{len(voters) - VOTERS_SHOWN:,} more"] if voters[VOTERS_SHOWN:] else []
    return ", ".join(f"{number:,} by {kind}" for kind, number in kinds.most_common()) + (
        f" ({', '.join(named)})" if named else ""
    )


def kind_of_voters(voters: Sequence[str]) -> str:
    if not voters:
        return "nobody named"
    return "judges" if all(voter.startswith(JUDGE) for voter in voters) else "people"


def agreement(pairs: Sequence[Pair]) -> list[str]:
    """How often those decide alike who compared the same two answers."""
    decisions: dict[tuple[str, frozenset[str]], Counter[str]] = {}
    for pair in pairs:
        answers = frozenset((pair.chosen.strip(), pair.rejected.strip()))
        decisions.setdefault((normalized(asked(pair.prompt)), answers), Counter())[pair.chosen.strip()] += 1
    again = [decision for decision in decisions.values() if decision.total() > 1]
    alike = sum(len(decision) == 1 for decision in again)
    return (
        [f"agreement {alike:,} of {count(len(again), 'comparison')} made more than once came out alike"]
        if again
        else []
    )


def characters(pairs: Sequence[Pair]) -> list[str]:
    """Whether the longer answer is the better one, and a warning where it nearly always or hardly ever is."""
    differing = [pair for pair in pairs if len(pair.chosen) != len(pair.rejected)]
    lines = [f"lengths   {means([(len(pair.chosen), len(pair.rejected)) for pair in pairs], 'characters')}"]
    if differing:
        longer, n = sum(len(pair.chosen) > len(pair.rejected) for pair in differing), len(differing)
        low, high = share_interval(longer, n)
        lines.append(
            f"          the longer answer is the chosen one in {longer / n:.1%} [{low:.1%}, {high:.1%}] of the "
            f"{count(n, 'pair')} whose lengths differ"
        )
        if low > NEARLY_ALWAYS or high < 1 - NEARLY_ALWAYS:
            size = "longer" if low > NEARLY_ALWAYS else "shorter"
            lines.append(
                f"          WARNING: nearly always the {size} answer is chosen, so length alone may be learned; add "
                f"pairs where the {size} one is rejected, and compare with lengths matched afterwards"
            )
    return lines


def tokens(pairs: Sequence[Pair], run: Path) -> list[str]:
    """Lengths as the run renders them, each answer with the token that stops it."""
    prompt, _ = find_prompt(str(run), None, None)
    sizes, longest = [], 0
    for pair in pairs:
        both = [
            prompt.encode((*pair.prompt, {"role": "assistant", "content": text}))
            for text in (pair.chosen, pair.rejected)
        ]
        sizes.append(tuple(end - start for encoded in both for start, end in encoded.spans))
        longest = max(longest, *(len(encoded.input_ids) for encoded in both))
    return [f"          {means(sizes, 'tokens')}; the longest with its prompt has {longest:,}"]


def means(sizes: Sequence[tuple[int, ...]], unit: str) -> str:
    chosen, rejected = (sum(column) / len(sizes) for column in zip(*sizes, strict=True))
    return f"on average {chosen:.1f} {unit} chosen, {rejected:.1f} rejected"
