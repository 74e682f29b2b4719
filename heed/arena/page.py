"""The page: two answers without names, a vote, the names; and the leaderboard."""

import os

# Read when gradio is imported: nothing is sent to anyone.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from heed import run_folder
from heed.arena import cards
from heed.arena.contestants import Answer, Ask, Failed, recorded, together
from heed.arena.matches import Match, Matches, vote_of
from heed.arena.ratings import agreements, leaderboards
from heed.arena.votes import MAX_NAME, Vote, VoteFile, voter_name
from heed.errors import UserError

HERE = Path(__file__).parent
SIDES = {"left": "A is better", "tie": "Tie", "both_bad": "Both bad", "right": "B is better"}
KEYS = {"left": "A", "tie": "T", "both_bad": "X", "right": "B"}
MAX_NOTE, MAX_QUESTION = 1000, 4000
REMEMBERED = "heed-arena-voter"
RECALL = f"() => {{ try {{ return [localStorage.getItem('{REMEMBERED}') || '']; }} catch {{ return ['']; }} }}"
REMEMBER = f"(name) => {{ try {{ localStorage.setItem('{REMEMBERED}', name.trim()); }} catch {{}} return [name]; }}"
FORGET = f"() => {{ try {{ localStorage.removeItem('{REMEMBERED}'); }} catch {{}} return []; }}"


@dataclass(frozen=True, kw_only=True)
class Arena:
    """All that the sessions of one server share."""

    contestants: Mapping[str, Ask]
    live: bool
    matches: Matches
    votes: VoteFile
    verdicts: Sequence[Vote]
    """Of judges, for the leaderboard."""
    has_rows: bool


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a session has on its screen, whole; kept on the server."""

    match: Match
    left: Answer
    right: Answer
    since: float


def build(arena: Arena, *, asks_name: bool) -> gr.Blocks:
    """`asks_name` is False where people log in with a password: their login name is the voter's."""
    with gr.Blocks(title="Heed Arena", analytics_enabled=False) as page:
        voter, shown = gr.State(""), gr.State(None)
        with gr.Row(elem_id="top"):
            gr.HTML("<h1>Which answer is better?</h1>")
            progress = gr.HTML(elem_id="progress")
        with gr.Column(elem_id="gate", visible=False) as gate:
            gr.HTML("<p>Two models answer the same question. You learn their names after your vote.</p>")
            name = gr.Textbox(
                label="Your name",
                info="Stands beside your votes, so that nobody sees a pair twice.",
                max_length=MAX_NAME,
                elem_id="name",
            )
            enter = gr.Button("Start", variant="primary", elem_id="enter")
        with gr.Column(visible=False, elem_id="floor") as floor, gr.Tabs():
            with gr.Tab("Vote"):
                typed, ask = question_box(arena)
                question = gr.HTML(elem_id="question")
                with gr.Row(elem_id="answers", equal_height=True):
                    left, right = gr.HTML(elem_id="left"), gr.HTML(elem_id="right")
                with gr.Column(elem_id="ballot"):
                    verdict = gr.HTML(elem_id="verdict")
                    with gr.Row(elem_id="votes"):
                        ballots = {
                            side: gr.Button(label, elem_id=f"vote-{side}", elem_classes=[f"key-{KEYS[side]}"])
                            for side, label in SIDES.items()
                        }
                    with gr.Row(elem_id="after"):
                        note = gr.Textbox(
                            placeholder="A note with your vote (optional)",
                            show_label=False,
                            label="Note",
                            max_length=MAX_NOTE,
                            container=False,
                            scale=4,
                            elem_id="note",
                        )
                        skip = gr.Button("Skip", elem_id="skip", elem_classes=["key-S"], visible=arena.has_rows)
                        next_ = gr.Button(
                            "Next pair",
                            variant="primary",
                            elem_id="next",
                            elem_classes=["key-N"],
                            visible=arena.has_rows,
                        )
            with gr.Tab("Leaderboard", elem_id="leaderboard-tab") as board_tab:
                board = gr.HTML(elem_id="leaderboard")
        change = gr.Button("Not you? Change the name", variant="link", size="sm", elem_id="change", visible=False)

        buttons = list(ballots.values())
        screen = [shown, question, left, right, verdict, note, *buttons, skip, next_, ask, progress]

        def screen_of(
            name: str,
            match: Match | None,
            answers: tuple[Answer | Failed, Answer | Failed] | None = None,
            *,
            whole: bool = True,
            message: str = "",
        ) -> list[Any]:
            """The components of the Vote tab before a vote."""
            done, total = arena.matches.progress(name)
            if match is None or answers is None:
                question_html = cards.finished(total) if total and done == total else cards.empty_question(message)
                off = [gr.update(interactive=False)] * 6
                return [None, question_html, "", "", "", "", *off, gr.update(interactive=True), tally(arena, name)]
            one, other = answers
            state = None
            if whole and isinstance(one, Answer) and isinstance(other, Answer):
                state = Shown(match=match, left=one, right=other, since=time.monotonic())
            votable = state is not None
            return [
                state,
                cards.question_card(match.question),
                cards.answer_card("A", one, growing=not whole),
                cards.answer_card("B", other, growing=not whole),
                "",
                gr.skip(),
                *[gr.update(interactive=votable)] * 4,
                gr.update(interactive=whole),
                gr.update(interactive=whole and not votable),
                gr.update(interactive=whole),  # two questions at once would write over each other
                tally(arena, name),
            ]

        def play(name: str, match: Match | None, message: str = "") -> Iterator[list[Any]]:
            if match is None:
                yield screen_of(name, None, message=message)
                return
            one, other = arena.contestants[match.left], arena.contestants[match.right]
            if not arena.live:
                yield screen_of(name, match, recorded(one, other, match.question))
                return
            yield screen_of(name, match, (Answer(text=""), Answer(text="")), whole=False)
            for first, second, whole in together(one, other, match.question):
                if whole:
                    for side, answer in ((match.left, first), (match.right, second)):
                        if isinstance(answer, Failed):
                            print(f"{side} could not answer: {answer.reason}")
                yield screen_of(name, match, (first, second), whole=whole)

        def next_pair(name: str) -> Iterator[list[Any]]:
            if not name:
                gr.Warning("The server was started anew; please reload this page.")
                yield screen_of(name, None, message="Please reload this page.")
                return
            message = "Ask anything above; two models answer side by side."
            yield from play(name, arena.matches.next(name) if arena.has_rows else None, message)

        def first_pair(name: str) -> Iterator[list[Any]]:
            yield from next_pair(name) if name else ([gr.skip()] * len(screen),)

        def skip_pair(name: str, state: Shown | None) -> Iterator[list[Any]]:
            if name and state is not None:
                arena.matches.skip(name, state.match)
            yield from next_pair(name)

        def ask_typed(name: str, words: str) -> Iterator[list[Any]]:
            words = words.strip()[:MAX_QUESTION]
            if not name or not words:
                yield from next_pair(name)
                return
            match = arena.matches.typed(name, words, list(arena.contestants))
            yield from play(name, match, "You have voted on this question with every pair of models. Ask another one.")

        def cast(side: str, name: str, state: Shown | None, words: str) -> list[Any]:
            if not name or state is None:
                gr.Warning("The server was started anew, so this vote was not counted; please reload this page.")
                return [gr.skip()] * len(screen)
            match = state.match
            vote = vote_of(
                match,
                voter=name,
                side=side,
                left=state.left.text,
                right=state.right.text,
                live=arena.live,
                note=words.strip()[:MAX_NOTE],
                time=run_folder.now(),
                seconds=time.monotonic() - state.since,
            )
            counted = arena.votes.add(vote)
            said = cards.revealed(match, side) if counted else cards.notice("You have voted on this pair before.")
            return [
                None,
                gr.skip(),
                cards.answer_card("A", state.left, name=match.left, won=counted and side == "left"),
                cards.answer_card("B", state.right, name=match.right, won=counted and side == "right"),
                said,
                "",
                *[gr.update(interactive=False)] * 4,
                gr.update(interactive=False),
                gr.update(interactive=True),
                gr.skip(),
                tally(arena, name),
            ]

        def come_in(words: str, request: gr.Request) -> list[Any]:
            who = voter_name(words if asks_name else str(request.username))
            return [
                who,
                gr.update(visible=not who),
                gr.update(visible=bool(who)),
                gr.update(visible=bool(who) and asks_name, value=f"Voting as {who}. Not you?"),
            ]

        def go_out() -> list[Any]:
            return ["", "", gr.update(visible=True), gr.update(visible=False), gr.update(visible=False), None]

        def show_board() -> str:
            votes = [*arena.votes.read(), *arena.verdicts]
            return cards.standings_card(leaderboards(votes), agreements(votes))

        quiet: Any = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        door = [voter, gate, floor, change]
        page.load(come_in, name, door, js=RECALL if asks_name else None, **quiet).then(
            first_pair, voter, screen, **quiet
        )
        gr.on([enter.click, name.submit], come_in, name, door, js=REMEMBER, **quiet).then(
            first_pair, voter, screen, **quiet
        )
        change.click(go_out, None, [voter, name, gate, floor, change, shown], js=FORGET, **quiet)
        for side, button in ballots.items():
            button.click(ballot(cast, side), [voter, shown, note], screen, **quiet)
        next_.click(next_pair, voter, screen, **quiet)
        skip.click(skip_pair, [voter, shown], screen, **quiet)
        gr.on([ask.click, typed.submit], ask_typed, [voter, typed], screen, **quiet)
        board_tab.select(show_board, None, board, **quiet)
    return page


def question_box(arena: Arena) -> tuple[gr.Textbox, gr.Button]:
    with gr.Row(elem_id="asking", visible=arena.live):
        typed = gr.Textbox(
            placeholder="Ask anything",
            show_label=False,
            label="Your question",
            max_length=MAX_QUESTION,
            lines=1,
            max_lines=8,
            container=False,
            scale=6,
            elem_id="typed",
        )
        ask = gr.Button("Ask", variant="primary", elem_id="ask")
    return typed, ask


def ballot(cast: Callable[..., list[Any]], side: str) -> Callable[..., list[Any]]:
    def vote(name: str, state: Shown | None, words: str) -> list[Any]:
        return cast(side, name, state, words)

    return vote


def tally(arena: Arena, name: str) -> str:
    votes = [vote for vote in arena.votes.read() if not vote.by_judge]
    done, total = arena.matches.progress(name)
    return cards.progress(done, total, len(votes), len({vote.voter for vote in votes}))


def theme() -> gr.themes.Base:
    """Fonts of the reader's own machine: none is fetched."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="gray",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def serve(arena: Arena, *, host: str, port: int, password: str | None, say: Callable[[str], object]) -> None:
    """Answer until Ctrl-C. Raises UserError when the port is taken."""
    from starlette.middleware import Middleware

    from heed.arena.guard import Guard, login

    page = build(arena, asks_name=password is None)
    page.queue(max_size=256)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            auth=login(password) if password is not None else None,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            footer_links=[],
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            run_history=False,
            max_file_size="1kb",
            theme=theme(),
            head=f"<style>{(HERE / 'page.css').read_text(encoding='utf-8')}</style>",
            js=(HERE / "page.js").read_text(encoding="utf-8"),
            app_kwargs={"middleware": [Middleware(Guard, any_host=password is not None)]},
        )
    except OSError as error:
        raise UserError(f"port: {port} on {host} cannot be had ({error}); choose another with port: NUMBER") from error
    say(f"arena     http://{host}:{port}   (Ctrl-C ends it; every vote is on the disk already)")
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)
