"""The page: two answers without names, a vote, the names; and the leaderboard."""

import os

# Read when gradio is imported: nothing is sent to anyone.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection

from heed.arena import screens
from heed.arena.matches import Side
from heed.arena.same_site import Guard, login
from heed.arena.screens import MAX_NOTE, MAX_QUESTION, Arena, Screen, Shown
from heed.arena.votes import MAX_NAME, voter_name
from heed.errors import UserError
from heed.saying import Say

HERE = Path(__file__).parent
# Each with the key that page.js presses it with.
BALLOT: dict[Side, tuple[str, str]] = {
    "left": ("A is better", "A"),
    "tie": ("Tie", "T"),
    "both_bad": ("Both bad", "X"),
    "right": ("B is better", "B"),
}
WELCOME = "<p>Two models answer the same question. You learn their names after your vote.</p>"
# The browser remembers who votes, so that a reload continues.
RECALL = "() => { try { return [localStorage.getItem('heed-arena-voter') || '']; } catch { return ['']; } }"
REMEMBER = "(name) => { try { localStorage.setItem('heed-arena-voter', name); } catch {} return [name]; }"
FORGET = "() => { try { localStorage.removeItem('heed-arena-voter'); } catch {} return []; }"


def build(arena: Arena, *, asks_name: bool) -> gr.Blocks:
    """`asks_name` is False where people log in with a password: their login name is the voter's."""
    with gr.Blocks(title="Heed Arena", analytics_enabled=False) as page:
        voter, shown = gr.State(""), gr.State(None)
        with gr.Row(elem_id="top"):
            gr.HTML("<h1>Which answer is better?</h1>")
            progress = gr.HTML(elem_id="progress")
        with gr.Column(elem_id="gate", visible=False) as gate:
            gr.HTML(WELCOME)
            name, enter = name_box()
        with gr.Column(visible=False, elem_id="floor") as floor, gr.Tabs():
            with gr.Tab("Vote"):
                with gr.Row(elem_id="asking", visible=arena.live):
                    typed, ask = question_box()
                question = gr.HTML(elem_id="question")
                with gr.Row(elem_id="answers", equal_height=True):
                    left, right = gr.HTML(elem_id="left"), gr.HTML(elem_id="right")
                with gr.Column(elem_id="ballot"):
                    verdict = gr.HTML(elem_id="verdict")
                    with gr.Row(elem_id="votes"):
                        ballot = {side: button(f"vote-{side}", *words) for side, words in BALLOT.items()}
                    with gr.Row(elem_id="after"):
                        note = note_box()
                        skip = button("skip", "Skip", "S", visible=arena.has_rows)
                        go_on = button("next", "Next pair", "N", visible=arena.has_rows, variant="primary")
            with gr.Tab("Leaderboard") as board_tab:
                board = gr.HTML(elem_id="leaderboard")
        change = gr.Button("", variant="link", size="sm", elem_id="change", visible=False)

        screen = [shown, question, left, right, verdict, note, *ballot.values(), skip, go_on, ask, progress]
        door = [voter, gate, floor, change]

        def come_in(words: str, request: gr.Request) -> list[Any]:
            who = voter_name(words if asks_name else str(request.username))
            leave = gr.update(visible=bool(who) and asks_name, value=f"Voting as {who}. Not you?")
            return [who, gr.update(visible=not who), gr.update(visible=bool(who)), leave]

        def go_out() -> list[Any]:
            return ["", gr.update(visible=True), gr.update(visible=False), gr.update(visible=False), None, ""]

        def first_pair(voter: str) -> Iterator[list[Any]]:
            # A generator without a value would empty every output, the labels of the buttons too.
            yield from next_pair(voter) if voter else ([gr.skip()] * len(screen),)

        def next_pair(voter: str) -> Iterator[list[Any]]:
            yield from map(updates, screens.next_pair(arena, voter))

        def skip_pair(voter: str, shown: Shown | None) -> Iterator[list[Any]]:
            yield from map(updates, screens.skip(arena, voter, shown))

        def ask_models(voter: str, words: str) -> Iterator[list[Any]]:
            yield from map(updates, screens.ask(arena, voter, words))

        def vote_for(side: Side) -> Callable[[str, Shown | None, str], list[Any]]:
            return lambda voter, shown, note: updates(screens.vote(arena, voter, side, shown, note))

        quiet: Any = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        loaded = page.load(come_in, name, door, js=RECALL if asks_name else None, **quiet)
        entered = gr.on([enter.click, name.submit], come_in, name, door, js=REMEMBER, **quiet)
        for event in (loaded, entered):
            event.then(first_pair, voter, screen, **quiet)
        change.click(go_out, None, [*door, shown, name], js=FORGET, **quiet)
        for side, pressed in ballot.items():
            pressed.click(vote_for(side), [voter, shown, note], screen, **quiet)
        go_on.click(next_pair, voter, screen, **quiet)
        skip.click(skip_pair, [voter, shown], screen, **quiet)
        gr.on([ask.click, typed.submit], ask_models, [voter, typed], screen, **quiet)
        board_tab.select(lambda: screens.board(arena), None, board, **quiet)
    return page


def updates(screen: Screen) -> list[Any]:
    """A screen as values of the components, in the order of `screen` in `build`."""

    def kept(value: str | None) -> Any:
        return gr.skip() if value is None else value

    return [
        screen.shown,
        kept(screen.question),
        kept(screen.left),
        kept(screen.right),
        screen.verdict,
        gr.update(interactive=screen.may_vote, **({} if screen.note is None else {"value": screen.note})),
        *[gr.update(interactive=screen.may_vote)] * len(BALLOT),
        gr.update(interactive=screen.may_skip),
        gr.update(interactive=screen.may_go_on),
        gr.update(interactive=screen.may_ask),
        screen.progress,
    ]


def button(elem_id: str, label: str, key: str, **options: Any) -> gr.Button:
    return gr.Button(label, elem_id=elem_id, elem_classes=[f"key-{key}"], interactive=False, **options)


def name_box() -> tuple[gr.Textbox, gr.Button]:
    info = "Saved with your votes, so that nobody sees a pair twice."
    name = gr.Textbox(label="Your name", info=info, max_length=MAX_NAME, elem_id="name")
    return name, gr.Button("Start", variant="primary", elem_id="enter")


def question_box() -> tuple[gr.Textbox, gr.Button]:
    typed = gr.Textbox(
        label="Your question",
        placeholder="Ask anything",
        show_label=False,
        container=False,
        max_length=MAX_QUESTION,
        max_lines=8,
        scale=6,
        elem_id="typed",
    )
    return typed, gr.Button("Ask", variant="primary", elem_id="ask")


def note_box() -> gr.Textbox:
    return gr.Textbox(
        label="Note",
        placeholder="Note (optional)",
        show_label=False,
        container=False,
        max_length=MAX_NOTE,
        scale=4,
        elem_id="note",
    )


def theme() -> gr.themes.Base:
    """Fonts of the reader's own machine: none is fetched."""
    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def logged_in(scope: Any) -> bool:
    """By the cookie that Gradio has given for the password."""
    app, cookies = scope["app"], HTTPConnection(scope).cookies
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(cookies.get(name) in app.tokens for name in names)


def serve(arena: Arena, *, host: str, port: int, password: str | None, say: Say) -> None:
    """Answer until Ctrl-C. Raises UserError when the port is taken."""
    page = build(arena, asks_name=password is None)
    page.queue(max_size=256)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            auth=None if password is None else login(password),
            auth_message="Any name will do; it is saved with your votes.",
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            footer_links=[],
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            run_history=False,
            theme=theme(),
            # As `css` Gradio would rewrite the selectors, and cut them at every comma.
            head=f"<style>{(HERE / 'page.css').read_text(encoding='utf-8')}</style>",
            js=(HERE / "page.js").read_text(encoding="utf-8"),
            app_kwargs={
                "middleware": [Middleware(Guard, logged_in=None if password is None else logged_in)],
                "openapi_url": None,  # with it FastAPI's pages of documentation go
            },
        )
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port: {port} on {host} is not available ({error}); choose another with port: NUMBER"
        ) from error
    say(f"arena     http://{host}:{port}   (Ctrl-C ends it; every vote is on the disk already)")
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)
