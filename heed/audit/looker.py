"""A row looked at by itself: its numbers, and the flags that need no other row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow

from heed.audit import duplicates
from heed.audit.duplicates import fingerprint
from heed.audit.languages import LANGUAGES, language
from heed.audit.marks import PLACEHOLDERS, marks_of
from heed.audit.overlap import References
from heed.audit.row import BIT, ROW
from heed.audit.seam import merges
from heed.data.records import Record, normalized, said
from heed.data.splits import hash_point
from heed.prompts.template import Prompt
from heed.tokens.encoding import Policy, encode_row
from heed.tokens.examples import FEATURES, Example, supervised_tokens

LITTLE = 0.02  # of a row's tokens are learned: not worth its price
PLACE = re.compile(r"(.*?)(\d+)(?: \(row (\d+)\))?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a process reports on its chunk of rows."""

    table: np.ndarray
    signatures: np.ndarray
    files: list[str]
    sources: list[str | None]
    tokens: pyarrow.Table
    """The examples of all rows, as `examples.FEATURES` has them."""
    known: dict[str, list[tuple[int, int]]]
    """For each evaluation file: row id there, position in this chunk."""


@dataclass(frozen=True, kw_only=True)
class Looker:
    """All that is needed to judge a row by itself."""

    prompt: Prompt
    policy: Policy
    references: References = field(default_factory=dict)

    def look(self, records: Sequence[Record]) -> Seen:
        table = np.zeros(len(records), dtype=ROW)
        signatures = np.empty((len(records), duplicates.NUMBERS), dtype=np.uint16)
        files, sources, known, encoded = [], [], {name: [] for name in self.references}, []  # type: ignore[var-annotated]
        for place, record in enumerate(records):
            row = table[place]
            before, line, counted = split_place(record.place)
            files.append(before)
            sources.append(record.source_split)
            row["row_id"], row["line"], row["row"], row["like"] = record.row_id, line, counted, -1
            row["point"] = hash_point(record)
            text = normalized(whole_text(record))
            row["content"] = fingerprint(text)
            row["question"] = fingerprint(normalized(record.question))
            row["answer"] = fingerprint(normalized(record.output))
            row["language"] = LANGUAGES.index(language(whole_text(record)))
            signatures[place] = duplicates.signature(duplicates.runs(text))
            row["flags"] = self.text_flags(record)
            examples = encode_row(record, self.prompt, self.policy)
            self.look_at_tokens(examples, row)
            encoded += examples
            for name, reference in self.references.items():
                hits = reference.known_to(text, int(row["question"]))
                if len(hits):
                    row["flags"] |= BIT["contaminated"]
                    known[name] += [(int(row_id), place) for row_id in reference.row_ids[hits]]
        tokens = pyarrow.Table.from_pylist(encoded, schema=FEATURES.arrow_schema)
        return Seen(table=table, signatures=signatures, files=files, sources=sources, tokens=tokens, known=known)

    def text_flags(self, record: Record) -> np.uint32:
        flags = np.uint32(0)
        fields = [text for turn in record.messages for text in (said(turn), turn.get("input", "")) if text]
        if any(self.prompt.control_tokens.search(text) for text in fields):
            flags |= BIT["control_tokens"]
        if any(marks_of(self.prompt).search(text) for text in fields):
            flags |= BIT["template_text"]
        if any(text.strip().casefold() in PLACEHOLDERS for text in fields):
            flags |= BIT["placeholder"]
        return flags

    def look_at_tokens(self, examples: Sequence[Example], row: np.void) -> None:
        """Add up the examples that a row gives."""
        bos = self.prompt.tokenizer.bos_token_id
        flags = np.uint32(row["flags"])
        for example in examples:
            learned = supervised_tokens(example, self.policy.loss_on)
            cut = example["cut_tokens"] if self.policy.loss_on == "all" or example["outcome"] == "cut_response" else 0
            row["tokens"] += example["tokens"] + example["cut_tokens"]
            row["response_tokens"] += example["response_tokens"]
            if example["outcome"] == "cut_response":
                row["response_tokens"] += cut
            if example["outcome"] == "too_long":
                row["lost_tokens"] += learned
            else:
                row["learned_tokens"] += learned
                row["lost_tokens"] += cut
            if example["outcome"] != "whole":
                flags |= BIT[example["outcome"]]
            if bos is not None and example["input_ids"][:2] == [bos, bos]:
                flags |= BIT["double_bos"]
            flags |= self.span_flags(example)
        kept = [example["tokens"] for example in examples if example["outcome"] != "too_long"]
        # Turns that are apart repeat what comes before them: the longest example has every token once.
        if kept and row["learned_tokens"] < LITTLE * max(kept):
            flags |= BIT["little_learned"]
        row["flags"] = flags

    def span_flags(self, example: Example) -> np.uint32:
        """What is wrong with the answers of an example, each seen by itself."""
        flags = np.uint32(0)
        eos = self.prompt.eos_token_id
        for start, end in example["spans"]:
            answer = example["input_ids"][start:end]
            cut = example["outcome"] == "cut_response" and end == len(example["input_ids"])
            if answer == [eos]:
                flags |= BIT["no_target"]
            if example["outcome"] != "too_long" and not cut and answer.index(eos) != len(answer) - 1:
                flags |= BIT["eos_not_learned"]
            if merges(self.prompt, example["input_ids"][:start], answer):
                flags |= BIT["boundary_merge"]
        return flags


def split_place(place: str) -> tuple[str, int, int]:
    """The parts of a place, from which it can be put together again; (place, line, row or -1)."""
    found = PLACE.fullmatch(place)
    assert found is not None, place
    return found[1], int(found[2]), int(found[3]) if found[3] else -1


def whole_text(record: Record) -> str:
    return f"{record.question}\n{record.output}"
