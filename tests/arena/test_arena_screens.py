import threading
from pathlib import Path

import pytest

from heed.arena.cards import answer_card, question_card, standings_card
from heed.arena.contestants import Ask, Failed, Said
from heed.arena.matches import Matches, Question, pairs_of
from heed.arena.ratings import leaderboards
from heed.arena.screens import STALE, Arena, Screen, ask, next_pair, skip, vote
from heed.arena.votes import Vote, VoteFile
from heed.saying import Say

QUESTIONS = [Question(row_id=row, messages=({"role": "user", "content": f"Say {row}."},)) for row in range(2)]
HOSTILE = "<img src=x onerror=alert(1)>"


def saying(*parts: str) -> Ask:
    def answer(question: Question, say: Say, stop: threading.Event) -> Said:
        for end in range(1, len(parts) + 1):
            say("".join(parts[:end]))
        return Said(text="".join(parts))

    return answer


def failing(question: Question, say: Say, stop: threading.Event) -> Failed:
    return Failed(reason="secret-b at http://127.0.0.1:1 is down")


def arena(folder: Path, second: Ask, *, live: bool = False) -> Arena:
    contestants = {"secret-a": saying("It is ", "so."), "secret-b": second}
    votes = VoteFile(folder / "votes.jsonl")
    pairs = pairs_of({name: {0, 1} for name in contestants})
    matches = Matches(QUESTIONS, pairs, votes, seed=0)
    return Arena(contestants=contestants, live=live, matches=matches, votes=votes, verdicts=[], has_rows=True)


def texts(screen: Screen) -> str:
    return " ".join(str(part) for part in (screen.question, screen.left, screen.right, screen.verdict, screen.progress))


def test_names_are_on_no_screen_before_the_vote_is_on_disk(tmp_path: Path) -> None:
    here = arena(tmp_path, saying("Or ", "not."), live=True)
    screens = list(next_pair(here, "Ada"))

    assert [screen.may_vote for screen in screens] == [False] * (len(screens) - 1) + [True] and len(screens) >= 2
    assert not any("secret" in texts(screen) for screen in screens)
    assert not any(screen.may_ask for screen in screens[:-1]) and screens[-1].may_ask

    revealed = vote(here, "Ada", "left", screens[-1].shown, " good ")
    assert "You preferred <b>secret-" in revealed.verdict and revealed.may_go_on and not revealed.may_vote
    assert [cast.note for cast in here.votes.read()] == ["good"]
    assert "before" in vote(here, "Ada", "right", screens[-1].shown, "").verdict and len(here.votes.read()) == 1


def test_a_model_that_failed_cannot_be_voted_on_and_keeps_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = list(next_pair(arena(tmp_path, failing, live=True), "Ada"))[-1]

    assert not last.may_vote and last.may_skip and "could not answer" in texts(last) and "secret" not in texts(last)
    assert "secret-b could not answer: secret-b at http://127.0.0.1:1 is down" in capsys.readouterr().out


def test_a_page_of_an_earlier_server_is_told_to_reload(tmp_path: Path) -> None:
    here = arena(tmp_path, saying("x"))
    assert STALE in vote(here, "Ada", "left", None, "").verdict
    assert [STALE in screen.verdict for screen in (*next_pair(here, ""), *ask(here, "", "What?"))] == [True, True]
    assert here.votes.read() == []


def test_after_the_last_pair_a_voter_is_thanked(tmp_path: Path) -> None:
    here = arena(tmp_path, saying("x"))
    for _ in range(2):
        [screen] = next_pair(here, "Ada")
        vote(here, "Ada", "tie", screen.shown, "")

    [end] = next_pair(here, "Ada")

    assert "You have voted on all 2 pairs." in texts(end) and not end.may_vote and not end.may_skip
    [other] = skip(here, "Bob", None)
    assert other.may_vote


def test_texts_of_models_and_people_are_escaped() -> None:
    question = Question(row_id=0, messages=({"role": "user", "content": HOSTILE, "input": HOSTILE},), reference=HOSTILE)
    pages = [question_card(question), answer_card("A", Said(text=HOSTILE), name=HOSTILE)]
    names = [(HOSTILE, "b"), ("b", "c"), (HOSTILE, "c")]
    votes = [Vote(time=None, voter=f"judge:{HOSTILE}", a=a, b=b, winner="a", first=None, row_id=0) for a, b in names]
    pages += [standings_card(leaderboards(votes), []), standings_card(leaderboards(votes[:1]), [])]

    assert all("<img" not in page and "&lt;img src=x" in page for page in pages)
