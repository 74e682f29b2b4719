"""Rows shared as a data set that `data: ME/ROWS` reads again, row by row the same."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, DatasetCard, DatasetCardData, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from heed.data.sources import Source, read
from heed.errors import UserError
from heed.hub.outbox import Target
from heed.hub.outgoing import has_secret, secrets_of
from heed.hub.push import TIMEOUT, one_line, remedy, set_timeout, status_of
from heed.saying import count

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
ROWS_FILE = "rows.jsonl"
SHOWN_SECRETS = 5


def push_data(path: Path, target: Target) -> str:
    """Push rows in one commit; where they are then.

    Each row is checked as training would check it. Raises UserError for malformed rows, for rows with what looks like
    a token, and for a Hub that does not take them.
    """
    reading = read(Source(data=str(path)))
    records, secrets = reading.rows.records, secrets_of()
    rows = [{"messages": [dict(message) for message in record.messages]} for record in records]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    leaks = [record.place for record, line in zip(records, lines, strict=True) if has_secret(line, secrets)]
    if leaks:
        more = f" and {len(leaks) - SHOWN_SECRETS} more" if len(leaks) > SHOWN_SECRETS else ""
        raise UserError(
            f"{', '.join(leaks[:SHOWN_SECRETS])}{more}: what is said there looks like a token; take it out (and renew "
            "it). Nothing was sent"
        )
    card = data_card(path, target.repo_id, len(rows), reading.rows.sha256)
    set_timeout(TIMEOUT)
    api = HfApi()
    try:
        url = push(api, target, "\n".join(lines) + "\n", card)
    except (HfHubHTTPError, HTTPError, OSError, RuntimeError) as error:
        status = status_of(error)
        reason = f"the Hub answers {status}{remedy(status)}" if status else one_line(error)
        raise UserError(f"{path} was not pushed to {target.repo_id}: {reason}") from error
    return f"{count(len(rows), 'row')} at {url}; use them with data: {target.repo_id}"


def push(api: HfApi, target: Target, rows: str, card: str) -> str:
    repo_id = api.create_repo(target.repo_id, repo_type="dataset", private=target.private, exist_ok=True).repo_id
    if target.revision != "main":
        api.create_branch(repo_id, repo_type="dataset", branch=target.revision, exist_ok=True)
    operations = [CommitOperationAdd(ROWS_FILE, rows.encode()), CommitOperationAdd("README.md", card.encode())]
    commit = api.create_commit(
        repo_id, operations, commit_message="Rows", repo_type="dataset", revision=target.revision
    )
    return commit.commit_url


def data_card(path: Path, repo_id: str, rows: int, sha256: str) -> str:
    size: Any = next((name for limit, name in SIZES if rows < limit), "n>1M")
    data = DatasetCardData(task_categories=["text-generation"], tags=["instruction-tuning"], size_categories=[size])
    name = repo_id.rpartition("/")[2]
    text = f"""---
{data.to_yaml()}
---

# {name}

{count(rows, "conversation")}, one a line in `{ROWS_FILE}`: `messages` of `role` and `content`, the user's with `input`
where there is one. Read from `{path.name}` and checked by Heed; SHA-256 of the
rows: `{sha256}`.

    python train_sft.py --config configs/gpt2_small.yaml --data {repo_id}
"""
    return str(DatasetCard(text))
