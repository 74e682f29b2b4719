"""Compare answers blind, side by side in the browser, and rate the models by the votes.

    python arena.py --config configs/arena.yaml
    python arena.py --run runs/tiny --live
    python arena.py --votes votes.jsonl --responses '{"small": "a/responses.json", "large": "b/responses.json"}'
    python arena.py --votes votes.jsonl --models '{"ours": "runs/tiny"}' \\
        --endpoints '{"theirs": {"base_url": "http://127.0.0.1:11434/v1", "model": "llama3"}}'
    python arena.py rate --votes runs/tiny/votes.jsonl --json arena.json --csv votes.csv
    python arena.py pairs --run runs/tiny --out pairs.jsonl       what was preferred, to train on
"""

import ipaddress
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from heed import __version__, config
from heed.commands import run_script
from heed.config import ArenaConfig, PairsConfig, RateConfig
from heed.errors import UserError
from heed.files import run_folder
from heed.shipped import command, setup
from heed.workers import what_is_here_stays

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.arena.contestants import Ask, Recording
    from heed.arena.matches import Question
    from heed.arena.screens import Arena
    from heed.arena.votes import Vote, VoteFile

PASSWORD_VARIABLE = "HEED_ARENA_PASSWORD"
SHORTEST_PASSWORD = 12


def main(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] == "rate":
        rate(arguments[1:])
    elif arguments and arguments[0] == "pairs":
        pairs(arguments[1:])
    else:
        open_arena(arguments)


def rate(arguments: Sequence[str]) -> None:
    """Print the leaderboards of a votes file; no page, no model."""
    loaded = config.load(RateConfig, arguments, doc=__doc__, flags=())
    if loaded is None:
        return
    ours = loaded.config
    from heed.arena import ratings, votes

    what_is_here_stays()
    cast = read_votes(Path(ours.votes), ours.judge)
    boards, agreed = ratings.leaderboards(cast), ratings.agreements(cast)
    print(ratings.as_text(boards, agreed))
    try:
        if ours.json is not None:
            run_folder.write_json(Path(ours.json), ratings.as_json(boards, agreed))
        if ours.csv is not None:
            votes.export_csv(Path(ours.csv), cast)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror})") from error


def read_votes(path: Path, judge: str | None) -> "list[Vote]":
    """People's votes and a judge's; what is damaged is said. Raises UserError where there is none."""
    from heed.arena.votes import VoteFile

    if not path.is_file():
        raise UserError(f"votes: {path}: no such file")
    file = VoteFile(path)
    cast = [*file.read(), *read_verdicts(judge)]
    if damage := file.damage:
        print(damage)
    if not cast:
        raise UserError(f"votes: {path} has no votes")
    return cast


def pairs(arguments: Sequence[str]) -> None:
    """Write what people and judges preferred as pairs that a preference trainer reads."""
    loaded = config.load(PairsConfig, arguments, doc=__doc__, flags=())
    if loaded is None:
        return
    ours = loaded.config
    from heed.arena.contestants import read_recording, refuse_other_answers
    from heed.arena.pairs import make_pairs
    from heed.data.records import asked
    from heed.runs.finished import run_around
    from heed.runs.held_out import held_out

    what_is_here_stays()
    path = votes_path(ours)
    cast = read_votes(path, ours.judge)
    by_row = any(vote.responses is None for vote in cast)  # votes on live answers have those in them
    recordings = {name: read_recording(Path(file)) for name, file in (recorded_files(ours) if by_row else [])}
    refuse_other_answers(cast, recordings, path)
    made = make_pairs(cast, recordings)
    for reason, count in made.left_out.items():
        print(f"left out  {count} ({reason})")
    if not made.pairs:
        raise UserError(f"votes: {path}: no vote prefers a known answer, so there are no pairs")
    if ours.run is not None and (run := run_around(Path(ours.run))) is not None:
        questions = [(each["row_id"], asked(each["prompt"])) for each in made.pairs]
        held_out(run).refuse(questions, ours.allow_held_out, "votes", print)
    run_folder.write_lines(Path(ours.out), made.pairs)
    print(f"pairs     {ours.out}: {len(made.pairs)}, {made.contradicted} of them against some votes")


def open_arena(arguments: Sequence[str]) -> None:
    loaded = config.load(ArenaConfig, arguments, doc=__doc__, more=f"\n{PASSWORD_VARIABLE}: password that voters give")
    if loaded is None:
        return
    ours = loaded.config
    check_installed("gradio")
    password = read_password(ours.host)
    from heed.arena.votes import VoteFile, check_writable

    if ours.run is not None and not Path(ours.run).is_dir():
        raise UserError(f"run: {ours.run}: no such folder")
    path = votes_path(ours)
    check_writable(path)
    file = VoteFile(path)
    arena = make_arena(ours, file)
    what_is_here_stays()
    print(f"votes     {path}: {len(file.read())} so far")
    if damage := file.damage:
        print(f"          {damage}")
    from heed.arena.page import serve

    serve(arena, host=ours.host, port=ours.port, password=password, say=print)


def check_installed(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed; `{setup('arena')}` does it")


def read_password(host: str) -> str | None:
    """None for an arena that only this machine can reach.

    Raises UserError for any other address without a password.
    """
    password = os.environ.get(PASSWORD_VARIABLE) or None
    if password is not None and len(password) < SHORTEST_PASSWORD:
        raise UserError(f"{PASSWORD_VARIABLE} has fewer than {SHORTEST_PASSWORD} characters")
    if password is None and not is_loopback(host):
        raise UserError(
            f"host: {host} can be reached from other machines; set a password in the environment variable "
            f"{PASSWORD_VARIABLE}, or leave host out"
        )
    return password


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def votes_path(ours: ArenaConfig | PairsConfig) -> Path:
    if ours.votes is not None:
        return Path(ours.votes)
    if ours.run is None:
        raise UserError("votes is missing: without a run there is no folder to keep them in; set votes: FILE")
    return Path(ours.run) / run_folder.VOTES_FILE


def read_verdicts(path: str | None) -> "list[Vote]":
    """A judge's verdicts as votes; what is left out is said."""
    if path is None:
        return []
    from heed.arena.votes import verdict_votes

    verdicts = verdict_votes(Path(path))
    for reason, count in verdicts.left_out.items():
        print(f"judge     {path}: {count} pairs left out ({reason})")
    return verdicts.votes


def make_arena(ours: ArenaConfig, votes: "VoteFile") -> "Arena":
    """Raises UserError when what is to be compared is missing, or both recorded and live."""
    live = bool(ours.models or ours.endpoints) or (ours.run is not None and ours.live)
    if live and ours.responses:
        raise UserError("responses are recorded and models or endpoints live; an arena shows one kind")
    if ours.run is not None and not ours.live and (ours.models or ours.endpoints):
        raise UserError(
            "run shows recorded answers, and models or endpoints are live; set live: true, or leave one out"
        )
    from heed.arena.matches import Matches, pairs_of

    if live:
        contestants, questions = live_contestants(ours)
        answered = {name: {question.item for question in questions} for name in contestants}
    else:
        recordings, questions = recorded_contestants(ours, votes)
        contestants = {name: recording.ask for name, recording in recordings.items()}
        answered = {name: set(recording.answers) for name, recording in recordings.items()}
    if ours.limit is not None and ours.limit < 1:
        raise UserError(f"limit: {ours.limit} shows nothing; give 1 or more, or leave it out")
    questions = questions[: ours.limit]
    kept = {question.item for question in questions}
    pairs = pairs_of({name: items & kept for name, items in answered.items()})
    if not live and not pairs:
        raise UserError("responses: no row is answered by two of the files")
    without = len(kept) - len({key.item for key in pairs})
    print(
        f"Heed {__version__}: {' and '.join(contestants)}, {'live' if live else 'recorded'}; {len(pairs)} pairs on rows"
    )
    if without:
        print(f"          {without} rows left out (fewer than two answers)")
    from heed.arena.screens import Arena

    return Arena(
        contestants=contestants,
        live=live,
        matches=Matches(questions, pairs, votes),
        votes=votes,
        verdicts=read_verdicts(ours.judge),
        has_rows=bool(pairs),
    )


def recorded_contestants(ours: ArenaConfig, votes: "VoteFile") -> "tuple[dict[str, Recording], list[Question]]":
    from heed.arena.contestants import common_questions, read_recording, refuse_other_answers

    files = recorded_files(ours)
    check_names([name for name, _ in files])
    recordings = {name: read_recording(Path(path)) for name, path in files}
    refuse_other_answers(votes.read(), recordings, votes.path)
    return recordings, common_questions(recordings)


def recorded_files(ours: ArenaConfig | PairsConfig) -> list[tuple[str, str]]:
    """Name -> responses.json, of the run's models and of others. Raises UserError for a run without them."""
    from heed.runs.finished import find_base, run_around

    files = list(ours.responses.items())
    if ours.run is not None:
        run = run_around(Path(ours.run))
        base = find_base(ours.run, run).name if run is not None else "base"
        names = {base: run_folder.BASE_RESPONSES_FILE, "tuned": run_folder.RESPONSES_FILE}
        for name, file in names.items():
            path = Path(ours.run) / file
            if not path.is_file():
                raise UserError(
                    f"run: {path} is missing; make it with `{command('eval_responses')} --model_name_or_path "
                    f"{ours.run} --compare_with_base`"
                )
            files.append((name, str(path)))
    return files


def live_contestants(ours: ArenaConfig) -> "tuple[dict[str, Ask], list[Question]]":
    from heed.arena.live import endpoint_asker, load_all, model_asker
    from heed.arena.matches import Question
    from heed.data.sources import Source, read
    from heed.runs.finished import Subject, find_base, find_run, set_aside

    run = None
    subjects = [Subject(name=name, model=model) for name, model in ours.models.items()]
    if ours.run is not None:
        run = find_run(ours.run)
        if run is None:
            raise UserError(f"run: {ours.run} is not a run folder; name its model with models: {{NAME: {ours.run}}}")
        subjects = [find_base(ours.run, run), Subject(name="tuned", model=ours.run), *subjects]
    check_names([*(subject.name for subject in subjects), *ours.endpoints])
    contestants: dict[str, Ask] = {}
    for loaded in load_all(subjects, dtype=ours.dtype, prompt=ours.prompt) if subjects else ():
        print(f"loaded    {loaded.subject.name}: {loaded.subject.model}, prompt {loaded.prompt.name}")
        contestants[loaded.subject.name] = model_asker(loaded, max_new_tokens=ours.max_new_tokens)
    for name, endpoint in ours.endpoints.items():
        contestants[name] = endpoint_asker(name, endpoint, max_new_tokens=ours.max_new_tokens)
    records = []
    if ours.data is not None:
        rows = read(Source(data=ours.data)).rows
        for note in rows.notes:
            print(f"{ours.data}: {note}")
        records = rows.records
    elif run is not None:
        records = set_aside(run, "test")
    return contestants, [
        Question(row_id=record.row_id, messages=record.messages[:-1], reference=record.output) for record in records
    ]


def check_names(names: Sequence[str]) -> None:
    """Raises UserError for fewer than two models, and for two of one name."""
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"two models are called {repeated[0]} (a run's are base and tuned); give one another name")
    if len(names) < 2:
        raise UserError("nothing to compare: give run: FOLDER, or two of responses, models or endpoints")


if __name__ == "__main__":
    run_script(main)
