"""Send a run to the Hub, write its card again, or share rows.

    python -m heed.hub RUN                          what has not arrived; of a finished run: the model and its card
    python -m heed.hub RUN --hub_model_id ME/MODEL  the same, for a run that was not told where to
    python -m heed.hub RUN --card_only              only write the card (README.md) again, after an evaluation
    python -m heed.hub push_data ROWS.json ME/ROWS  share a file of rows as a data set

--hub_revision BRANCH and --hub_private_repo true|false say more. A token comes from HF_TOKEN or `hf auth login`.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heed.config import convert, parse_command_line
from heed.errors import UserError, exit_code
from heed.files import run_folder
from heed.hub.outbox import Outbox, Target, check_repo_id, waiting

KEYS = ("hub_model_id", "hub_revision", "hub_private_repo")


def main(arguments: Sequence[str]) -> None:
    if not arguments or {"--help", "-h"} & set(arguments):
        print((__doc__ or "").strip())
        return
    words = [word for word in arguments if word != "--card-only"]
    count = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    named = parse_command_line(words[count:], flags=()).overrides
    card_only = truth(named, "card_only") or len(words) < len(arguments)
    named.pop("card_only", None)
    unknown = [name for name in named if name not in KEYS]
    if unknown:
        raise UserError(f"--{unknown[0]}: unknown; there are {', '.join(f'--{name}' for name in KEYS)} and --card_only")
    if card_only and (words[0] == "push_data" or "hub_private_repo" in named):
        raise UserError("--card_only sends nothing: it goes with RUN, --hub_model_id and --hub_revision")
    if words[0] == "push_data" and count == 3:
        from heed.hub.data import push_data

        print(push_data(Path(words[1]), target(named | {"hub_model_id": words[2]}, {})))
    elif count == 1 and words[0] != "push_data":
        send(Path(words[0]), named, card_only=card_only)
    else:
        raise UserError("expected RUN, or push_data FILE NAME; --help shows how")


def send(run: Path, named: dict[str, str], *, card_only: bool) -> None:
    """Raises UserError where something is left that could not be sent."""
    if not (run / run_folder.RUN_FILE).is_file():
        raise UserError(f"{run} is not a run folder ({run_folder.RUN_FILE} is missing)")
    config = run_folder.read_json(run / run_folder.CONFIG_FILE)
    told = {name: config.get(name, {}).get("value") for name in KEYS}
    done = run_folder.read_json(run / run_folder.RUN_FILE)["status"] == "done"
    if card_only:
        from heed.hub.card import CARD_FILE, write_card

        write_card(run, named.get("hub_model_id"), named.get("hub_revision"))
        print(f"written   {run / CARD_FILE}")
        return
    if not done and not waiting(run):
        raise UserError(f"{run} is not finished and nothing of it waits to be sent; give the training's command again")
    outbox = Outbox(run, target(named, told), print)
    if done:
        from heed.hub.card import CARD_FILE, write_card

        outbox.add(run, "the model", texts={CARD_FILE: write_card(run, outbox.target.repo_id, outbox.target.revision)})
    if not outbox.finish(float("inf")):
        raise UserError("the Hub did not take everything; nothing is lost")


def target(named: dict[str, str], told: dict[str, Any]) -> Target:
    repo_id = named.get("hub_model_id") or told.get("hub_model_id")
    if not repo_id:
        raise UserError("hub_model_id is missing: --hub_model_id ME/MODEL says where to")
    check_repo_id(repo_id, "hub_model_id")
    private = truth(named, "hub_private_repo")
    found = Target(repo_id=repo_id, revision=named.get("hub_revision") or told.get("hub_revision") or "main")
    return replace(found, private=told.get("hub_private_repo") if private is None else private)


def truth(named: dict[str, str], name: str) -> bool | None:
    return convert(named[name], bool, f"--{name}") if name in named else None


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
