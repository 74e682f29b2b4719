"""Rows that count as one draw, since they come from one question or one template."""

from collections.abc import Hashable, Mapping, Sequence

from heed.answers.responses import Answer
from heed.audit.duplicates import grouped
from heed.data.records import normalized
from heed.saying import count

Clusters = Mapping[int, Hashable]
"""Row id -> its cluster. Systems that answered the same rows have the same clusters."""


def clusters_of(answers: Sequence[Answer], field: str | None) -> Clusters | None:
    """By the field whose equals are drawn together; without one, rows that ask the same or are near duplicates.

    None where every row stands alone.
    """
    if field is not None:
        found = {each.row_id: getattr(each, field) for each in answers}
    else:
        questions = [question(each) for each in answers]
        first = {text: place for place, text in reversed(list(enumerate(questions)))}
        groups = grouped([f"{text}\n{normalized(each.output)}" for text, each in zip(questions, answers, strict=True)])
        found = {each.row_id: groups[first[text]] for each, text in zip(answers, questions, strict=True)}
    return found if len(set(found.values())) < len(found) else None


def question(answer: Answer) -> str:
    turns = [turn["content"] for turn in answer.history]
    return normalized("\n".join([answer.system_prompt or "", *turns, answer.user_content]))


def clusters_text(clusters: Clusters | None, field: str | None) -> str | None:
    """What is drawn together, for whoever reads the intervals."""
    if clusters is None:
        return None
    why = f"have the same {field}" if field is not None else "ask the same, or nearly repeat each other"
    return f"{count(len(clusters), 'row')} count as {len(set(clusters.values())):,} in the intervals: some {why}."
