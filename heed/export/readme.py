"""What a folder with a GGUF file says of itself."""

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from heed.export.modelfile import TRIMS
from heed.export.proof import ENOUGH, EXACT, Proof, Row
from heed.files.hashes import file_sha256
from heed.measure.intervals import share_interval
from heed.prompts.template import Contract, Prompt
from heed.saying import count

TEMPLATE = Path(__file__).parent / "readme.jinja"


def verdict(proof: Proof | str, type: str) -> str:
    """In one sentence; a text is the reason why there is no proof."""
    if isinstance(proof, str):
        return f"NOT PROVED: {proof}."
    low, high = share_interval(proof.same, len(proof.rows))
    word = "FAILED" if not proof.holds(type) else "Proved" if type in EXACT else "Tried"
    return (
        f"{word}: llama.cpp answers {proof.same} of "
        f"{count(len(proof.rows), 'held-out row')} as the run does, token by token (95 % interval of the share: "
        f"{low:.2f} to {high:.2f})."
    )


def readme(
    proof: Proof | str, *, run: str, type: str, file: Path, prompt: Prompt, contract: Contract, ollama: str | None
) -> str:
    rows = [] if isinstance(proof, str) else proof.rows
    names = prompt.tokenizer.convert_ids_to_tokens(contract.stop_token_ids)
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        proof=proof,
        tried=not isinstance(proof, str),
        verdict=verdict(proof, type),
        run=run,
        type=type,
        file=file,
        sha256=file_sha256(file),
        contract=contract,
        stops=", ".join(f"`{name}`" for name in names),
        ollama=ollama,
        trims=TRIMS,
        n=len(rows),
        by_message=sum(row.by_message for row in rows),
        same_prompt=sum(row.same_prompt for row in rows),
        enough=f"{ENOUGH:.0%}",
        exact=type in EXACT,
        different=[difference(row, prompt) for row in rows if not row.same],
    )


def difference(row: Row, prompt: Prompt) -> str:
    """Where a row differs first, in the prompt and in the answer."""
    places = [] if row.same_prompt else ["the prompt's tokens"]
    if (place := row.difference) is not None:
        ours, theirs = (
            prompt.tokenizer.convert_ids_to_tokens(ids[place : place + 1]) or ["nothing"]
            for ids in (row.ours, row.theirs)
        )
        nats = "" if row.preference is None else f", {row.preference:.3f} nats apart to the run"
        places.append(f"token {place + 1} of the answer (`{ours[0]}` here, `{theirs[0]}` there{nats})")
    return f"{row.place}: {' and '.join(places)}"
