"""A run as a GGUF file for llama.cpp and Ollama, and whether it answers there as it does here.

    python -m heed.export runs/gpt2_medium --to gguf --out exported/gpt2_medium

An adapter is merged first. FOLDER gets the file, a Modelfile for Ollama, and a README that says how many of the run's
held-out rows llama.cpp answers token by token as the run does. A file that was not tried, or that failed, is called
not-proved. `make export-setup` brings converter and runtime.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from heed.errors import UserError, exit_code
from heed.export.convert import TYPES, check_type, convert, refuse_unready
from heed.files.run_folder import is_adapter
from heed.files.whole_folder import refuse_used, whole_folder


def export(run: str, folder: Path, *, type: str) -> str:
    """Write the folder; what was found is returned. Raises UserError, with everything written, where a proof fails."""
    from heed.answers.subjects import find_prompt
    from heed.export.modelfile import modelfile
    from heed.export.proof import prepared, prove
    from heed.export.readme import readme, verdict
    from heed.merge import merge
    from heed.prompts.template import fetch_contract

    check_type(type)
    if not Path(run).is_dir() or fetch_contract(run) is None:
        raise UserError(
            f"{run} is not a folder with a model that Heed has trained, whose prompt could go into the file"
        )
    refuse_unready()
    refuse_used(folder)
    prompt, contract = find_prompt(run, None, None)
    ready, name = prepared(run), Path(run).resolve().name
    with whole_folder(folder, key="--out") as staged:
        model = Path(run)
        if is_adapter(model):
            model = staged / "merged"
            merge(run, model)
        file = staged / f"{name}-{type}.gguf"
        convert(model, file, type=type, name=name)
        proof = ready if isinstance(ready, str) else prove(run, file, *ready)
        holds = not isinstance(proof, str) and proof.holds(type)
        if not holds:
            file = file.rename(file.with_suffix(".not-proved.gguf"))
        told = modelfile(file.name, prompt, contract)
        if told is not None:
            (staged / "Modelfile").write_text(told, encoding="utf-8")
        page = readme(proof, run=run, type=type, file=file, prompt=prompt, contract=contract, ollama=told)
        (staged / "README.md").write_text(page, encoding="utf-8")
    found = verdict(proof, type)
    if not holds and not isinstance(proof, str):
        raise UserError(f"{found} {folder / 'README.md'} says where they differ")
    return found


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m heed.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint")
    parser.add_argument("--to", required=True, choices=["gguf"])
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="it must be empty or absent")
    parser.add_argument("--type", default=TYPES[0], help=f"of the weights: {', '.join(TYPES)}")
    words = parser.parse_args(arguments)
    found = export(words.run, words.out, type=words.type)
    print(f"exported  {words.out}\n{found}")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
