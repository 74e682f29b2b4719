"""Whether a source should be learned from: what a scan found, compared with thresholds."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from heed.audit.scan import Scan
from heed.data.splits import SPLITS, UNUSED
from heed.errors import UserError
from heed.saying import count

EXAMPLES_SHOWN = 3
BAD_ROWS = "bad_row"
Among = Literal["rows", "held-out rows", "evaluation questions", "pairs"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Something that can be wrong with a row. A higher share of rows than `threshold` stops."""

    meaning: str
    threshold: float
    among: Among = "rows"


KINDS: dict[str, Kind] = {
    BAD_ROWS: Kind(meaning="cannot be read as a row, or lacks a text", threshold=0.05),
    "no_target": Kind(meaning="nothing but EOS is to be learned", threshold=0.0),
    "eos_not_learned": Kind(meaning="EOS is inside a whole response, not only at its end", threshold=0.0),
    "too_long": Kind(meaning="longer than max_length (on_long_row: cut_prompt | cut_response | drop)", threshold=0.05),
    "cut_prompt": Kind(meaning="over max_length: the beginning of the prompt is cut off", threshold=0.05),
    "cut_response": Kind(
        meaning="over max_length: the end of the response is cut off, and EOS with it", threshold=0.05
    ),
    "little_learned": Kind(meaning="less than 2 % of its tokens are learned", threshold=0.5),
    "double_bos": Kind(meaning="begins with two BOS tokens", threshold=0.0),
    "boundary_merge": Kind(
        meaning="prompt and answer would have other tokens where they meet if tokenized together", threshold=0.25
    ),
    "control_tokens": Kind(meaning="a control token of the tokenizer is in the text", threshold=0.01),
    "template_text": Kind(meaning="words or marks of a prompt template are in the text", threshold=0.01),
    "placeholder": Kind(meaning="a text is nothing but nan, null, n/a, <noinput> or the like", threshold=0.02),
    "duplicate": Kind(meaning="the same as an earlier row of its split", threshold=0.02),
    "near_duplicate": Kind(meaning="nearly the same as an earlier row of its split", threshold=0.05),
    "conflicting_answers": Kind(meaning="the same prompt has a different answer elsewhere", threshold=0.05),
    "split_overlap": Kind(meaning="the same prompt is in the training rows", threshold=0.05, among="held-out rows"),
    "near_split_overlap": Kind(
        meaning="nearly the same row is in the training rows", threshold=0.05, among="held-out rows"
    ),
    "unlike_training": Kind(
        meaning="has a word, a length or a file that training rows rarely have", threshold=1.0, among="held-out rows"
    ),
    "other_language": Kind(meaning="in another language than most rows", threshold=0.2),
    "odd_length": Kind(meaning="far shorter or longer than the other rows", threshold=0.05),
    "contaminated": Kind(
        meaning="a training row gives the question away", threshold=0.01, among="evaluation questions"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How often something was found, and where first."""

    name: str
    kind: Kind
    count: int
    total: int
    threshold: float
    allowed: bool
    examples: list[str]

    @property
    def share(self) -> float:
        return self.count / self.total if self.total else 0.0

    @property
    def stops(self) -> bool:
        return self.share > self.threshold and not self.allowed


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The findings on a source, in the order of KINDS; those that were not found have a count of 0."""

    findings: list[Finding]
    scan: Scan

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Sums over the rows of all splits."""
        rows = self.scan.rows[self.scan.rows["split"] != UNUSED]
        names = ("tokens", "response_tokens", "learned_tokens", "lost_tokens")
        return {name: int(rows[name].sum(dtype=np.int64)) for name in names}

    def summary(self) -> str:
        """One line for the terminal of a run."""
        scan = self.scan
        found = ", ".join(f"{finding.count} {finding.name}" for finding in self.findings if finding.count)
        took = f"{'in the cache; looking took' if scan.from_cache else 'looked at in'} {scan.seconds:.1f} s"
        return f"{count(len(scan.rows), 'row')}, {took}; found {found or 'nothing'}"

    def as_json(self) -> dict[str, Any]:
        """What run.json keeps of it."""
        return {
            finding.name: {"count": finding.count, "of": finding.total, "threshold": finding.threshold}
            for finding in self.findings
            if finding.count
        }


Found = Mapping[str, tuple[int, int, list[str]]]
"""Of each kind that was looked for how many, among how many, and where the first are."""


def measured(
    found: Found, changes: Mapping[str, float], allow: Sequence[str], kinds: Mapping[str, Kind] = KINDS
) -> list[Finding]:
    """Findings in the order of their kinds, against the default thresholds with a config's own `changes`.

    Raises UserError for unknown names and for what is not a share.
    """
    for key, names in (("audit", list(changes)), ("audit_allow", allow)):
        for name in names:
            check_name(name, key, kinds)
    for name, share in changes.items():
        if not 0 <= share <= 1:
            raise UserError(f"audit.{name}: {share} is not a share of rows, between 0 and 1")
    return [
        Finding(
            name=name,
            kind=kind,
            count=found[name][0],
            total=found[name][1],
            threshold=changes.get(name, kind.threshold),
            allowed=name in allow,
            examples=found[name][2],
        )
        for name, kind in kinds.items()
        if name in found
    ]


def check_name(name: str, key: str, kinds: Mapping[str, Kind]) -> None:
    if name not in kinds:
        nearest = difflib.get_close_matches(name, kinds, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; the known ones are {', '.join(kinds)}"
        raise UserError(f"{key}: unknown finding {name!r}{hint}")


def judge(scan: Scan, changes: Mapping[str, float], allow: Sequence[str]) -> Audit:
    """Compare a scan with the thresholds; findings named in `allow` stop nothing."""
    used = scan.rows["split"] != UNUSED
    held_out = scan.rows["split"] > 0
    found: dict[str, tuple[int, int, list[str]]] = {}
    for name, kind in KINDS.items():
        if name == BAD_ROWS:
            total, count = len(scan.rows) + scan.rejected_count, scan.rejected_count
            examples = [f"{row['place']}: {'; '.join(row['reasons'])}" for row in scan.rejected[:EXAMPLES_SHOWN]]
        elif kind.among == "evaluation questions":
            total = sum(facts["questions"] for facts in scan.against.values())
            pairs = [
                f"{file}, row {int(row_id) + 1}, in {scan.place(position)}"
                for file, facts in scan.against.items()
                for row_id, position in sorted(facts["known"].items(), key=lambda item: int(item[0]))
            ]
            count, examples = len(pairs), pairs[:EXAMPLES_SHOWN]
        else:
            among = held_out if kind.among == "held-out rows" else used
            flagged = scan.flagged(name)
            flagged = flagged[among[flagged]]
            total, count = int(among.sum()), len(flagged)
            examples = [example(scan, int(position), name) for position in flagged[:EXAMPLES_SHOWN]]
        found[name] = count, total, examples
    return Audit(findings=measured(found, changes, allow), scan=scan)


def example(scan: Scan, position: int, name: str) -> str:
    if name == "conflicting_answers":
        return f"{scan.place(position)}, answered differently in {scan.place(scan.other_answer(position))}"
    like = int(scan.rows["like"][position])
    related = name in ("duplicate", "near_duplicate", "split_overlap", "near_split_overlap") and like >= 0
    return scan.place(position) + (f", like {scan.place(like)}" if related else "")


def table(audit: Audit) -> str:
    """Every finding with its count, share and threshold, and where it was found first."""
    rows = audit.scan.rows
    parts = ", ".join(f"{name} {int((rows['split'] == number).sum()):,}" for number, name in enumerate(SPLITS))
    tokens = audit.tokens
    lost = f"; {tokens['lost_tokens']:,} more are lost to max_length" if tokens["lost_tokens"] else ""
    lines = [
        f"audit of {count(len(rows), 'row')}: {parts}",
        f"{count(tokens['tokens'], 'token')}, {tokens['learned_tokens']:,} of them learned "
        f"({tokens['learned_tokens'] / max(1, tokens['tokens']):.1%}){lost}",
        "",
        *finding_lines(audit.findings),
        *(f"  {sentence}" for sentence in audit.scan.likeness),
    ]
    return "\n".join(lines)


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    lines = [f"  {'finding':<20} {'count':>8}  {'share':>7}  {'at most':>7}"]
    for finding in findings:
        if not finding.count:
            continue
        mark = "  OVER" if finding.stops else "  allowed" if finding.allowed else ""
        kind = finding.kind
        among = "" if kind.among in ("rows", "pairs") else f" (of {finding.total:,} {kind.among})"
        lines.append(
            f"  {finding.name:<20} {finding.count:>8,}  {finding.share:>7.2%}  {finding.threshold:>7.2%}{mark:<8} "
            f"{kind.meaning}{among}"
        )
        lines += [f"    {place}" for place in finding.examples]
    absent = [finding.name for finding in findings if not finding.count]
    return lines + ([f"  not found: {', '.join(absent)}"] if absent else [])


SHOWN_BY = "inspect_data.py --config FILE --html rows.html shows them, --export FILE cleans them"


def refuse(findings: Sequence[Finding], shown_by: str = SHOWN_BY) -> None:
    """Raises UserError when a finding is over its threshold and not allowed: the table, and the ways out."""
    stopping = [finding for finding in findings if finding.stops]
    if not stopping:
        return
    names = ", ".join(finding.name for finding in stopping)
    lines = [f"the data audit stops here: {names}"]
    for finding in stopping:
        kind = finding.kind
        lines.append(
            f"  {finding.name}: {finding.count:,} of {finding.total:,} {kind.among} ({finding.share:.2%}, at most "
            f"{finding.threshold:.2%}): {kind.meaning}"
        )
        lines += [f"    {place}" for place in finding.examples]
    first = stopping[0]
    lines += [
        f"Correct them ({shown_by});",
        f"or, if they are meant, allow them by name: audit_allow: [{names}]",
        f"or raise a threshold: audit: {{{first.name}: {min(1.0, np.ceil(first.share * 100) / 100):.2f}}}",
    ]
    raise UserError("\n".join(lines))
