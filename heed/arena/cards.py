"""What the arena's page shows, as HTML. Every text of models and people is escaped here."""

from collections.abc import Sequence
from html import escape

from heed.arena.contestants import Failed, Said
from heed.arena.matches import Match, Question, Side
from heed.arena.ratings import PEOPLE, Agreement, Leaderboard, Pair, Standing
from heed.saying import count

VERDICTS: dict[Side, str] = {"tie": "A tie", "both_bad": "Both bad"}


def question_card(question: Question) -> str:
    what = "Your question" if question.row_id is None else f"Row {question.row_id}"
    *earlier, last = question.messages
    turns = "".join(
        f'<div class="turn"><span class="eyebrow">{escape(message["role"])}</span>{text(message["content"])}</div>'
        for message in earlier
    )
    shown_input = f'<div class="input">{text(last["input"])}</div>' if last.get("input") else ""
    reference = (
        f"<details><summary>Reference answer</summary>{text(question.reference)}</details>"
        if question.reference
        else ""
    )
    return (
        f'<section class="question" aria-label="Question"><p class="eyebrow">{what}</p>{turns}'
        f'<div class="asked">{text(last["content"])}</div>{shown_input}{reference}</section>'
    )


def answer_card(
    side: str, answer: Said | Failed, *, growing: bool = False, name: str | None = None, won: bool = False
) -> str:
    """One answer; `name` is given once the vote is on the disk, and not before."""
    if isinstance(answer, Failed):
        body = '<p class="none">This model could not answer; the server\'s terminal tells why.</p>'
    elif answer.text.strip():
        body = text(answer.text)
    else:
        body = '<p class="none">…</p>' if growing else '<p class="none">(an empty answer)</p>'
    cut = '<p class="cut">cut off at the length limit</p>' if isinstance(answer, Said) and answer.cut else ""
    revealed = f'<span class="name">{escape(name)}</span>' if name else ""
    crown = '<span class="chosen">your choice</span>' if won else ""
    classes = " ".join(["answer", *(["growing"] if growing else []), *(["won"] if won else [])])
    return (
        f'<article class="{classes}" aria-label="Answer {side}" aria-busy="{str(growing).lower()}">'
        f'<header><span class="side">{side}</span>{revealed}{crown}</header>'
        f'<div class="body" tabindex="0">{body}{cut}</div></article>'
    )


def text(plain: str) -> str:
    return f'<div class="text">{escape(plain)}</div>'


def revealed(match: Match, side: Side) -> str:
    """What is said after a vote."""
    left, right = escape(match.left), escape(match.right)
    verdict = VERDICTS.get(side) or f"You preferred <b>{left if side == 'left' else right}</b>"
    return f'<p class="verdict" role="status">{verdict}. A was <b>{left}</b>, B was <b>{right}</b>.</p>'


def notice(message: str) -> str:
    return f'<p class="verdict" role="status">{escape(message)}</p>'


def message_card(words: str) -> str:
    return f'<section class="question"><div class="asked">{escape(words)}</div></section>'


def progress(done: int, total: int, votes: int, voters: int) -> str:
    people = f"{votes:,} vote{'s' * (votes != 1)} by {voters} {'person' if voters == 1 else 'people'}"
    if not total:
        return f'<div class="progress"><p>{people}</p></div>'
    return (
        f'<div class="progress"><p><b>{done}</b> of {total} pairs · {people}</p>'
        f'<progress value="{done}" max="{total}" aria-label="Pairs you have voted on"></progress></div>'
    )


def standings_card(boards: Sequence[Leaderboard], agreed: Sequence[Agreement]) -> str:
    """Leaderboards of people and of each judge, and how far they agree."""
    if not boards:
        return '<section class="board"><p class="none">No votes yet.</p></section>'
    return "".join(map(board_section, boards)) + agreement_section(agreed)


def board_section(board: Leaderboard) -> str:
    voters = (
        f" by {len(board.voters)} {'person' if len(board.voters) == 1 else 'people'}" if board.who == PEOPLE else ""
    )
    title = "People" if board.who == PEOPLE else escape(board.who.removeprefix("judge:"))
    kind = "" if board.who == PEOPLE else '<span class="eyebrow">judge</span> '
    parts = [
        f'<section class="board"><h3>{kind}{title}<span class="count">{count(board.votes, "vote")}{voters}</span></h3>',
        ratings_table(board.standings),
    ]
    names = [standing.model for standing in board.standings]
    parts.append(duel(board.between(names[0], names[1])) if len(names) == 2 else win_matrix(board, names))
    return "".join(parts) + "</section>"


def ratings_table(standings: Sequence[Standing]) -> str:
    low = min(standing.ci95[0] for standing in standings)
    high = max(standing.ci95[1] for standing in standings)
    margin = max(20.0, 0.05 * (high - low))
    low, high = low - margin, high + margin

    def place(rating: float) -> float:
        return round(100 * (rating - low) / (high - low), 2)

    rows = []
    for standing in standings:
        start, end, middle = place(standing.ci95[0]), place(standing.ci95[1]), place(standing.rating)
        apart = f' <span class="muted">group {standing.group}</span>' if standing.group > 1 else ""
        rows.append(
            f'<tr><td class="number">{standing.rank}</td><th scope="row">{escape(standing.model)}{apart}</th>'
            f'<td class="number"><b>{standing.rating:.0f}</b></td>'
            f'<td class="number interval">{standing.ci95[0]:.0f} to {standing.ci95[1]:.0f}</td>'
            f'<td class="whisker"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<line x1="{start}" x2="{end}" y1="5" y2="5"/></svg><i style="left:{middle}%"></i></td>'
            f'<td class="number">{standing.votes}</td></tr>'
        )
    together = len({standing.group for standing in standings}) == 1
    note = (
        "" if together else '<p class="muted">Models of different groups never met; each group has a mean of 1000.</p>'
    )
    return (
        '<table class="ratings"><thead><tr><th class="number">Rank</th><th>Model</th><th class="number">Rating</th>'
        '<th class="number interval">95 % interval</th><th class="whisker"></th><th class="number">Votes</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table>{note}"
    )


def duel(pair: Pair | None) -> str:
    """Two models: a bar of wins, what was undecided, and losses."""
    if pair is None:
        return ""
    shares = [
        ("win", pair.wins, f"{pair.a} won"),
        ("tie", pair.ties, "ties"),
        ("bad", pair.both_bad, "both bad"),
        ("loss", pair.losses, f"{pair.b} won"),
    ]
    bar = "".join(
        f'<i class="{kind}" style="flex-grow:{count}" title="{escape(label)}: {count}"></i>'
        for kind, count, label in shares
        if count
    )
    legend = "".join(f'<li><i class="{kind}"></i>{escape(label)} <b>{count}</b></li>' for kind, count, label in shares)
    interval = "a tie counts half"
    if pair.win_rate_ci95 is not None:
        low, high = pair.win_rate_ci95
        interval = f"95 % interval {low:.0%} to {high:.0%}; {interval}"
    return (
        f'<div class="duel"><div class="bar" aria-hidden="true">{bar}</div><ul>{legend}</ul>'
        f"<p>Win rate of {escape(pair.a)}: <b>{pair.win_rate:.0%}</b> "
        f'<span class="muted">({interval})</span></p></div>'
    )


def win_matrix(board: Leaderboard, names: Sequence[str]) -> str:
    """How often the model of a row was preferred to the model of a column."""
    head = "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in names)
    rows = []
    for name in names:
        cells = []
        for other in names:
            pair = board.between(name, other) if name != other else None
            cells.append(
                '<td class="number muted">·</td>'
                if pair is None
                else f'<td class="number" style="--share:{pair.win_rate:.3f}" title="{count(pair.votes, "vote")}">'
                f"{pair.win_rate:.0%}</td>"
            )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return (
        '<div class="wide"><table class="matrix"><caption>Win rate of the row against the column; a tie counts half'
        f"</caption><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def agreement_section(agreed: Sequence[Agreement]) -> str:
    if not agreed:
        return ""
    rows = []
    for each in agreed:
        whom = "among themselves" if each.who == each.with_whom else f"and {escape(each.with_whom)}"
        alpha = "" if each.krippendorff_alpha is None else f", Krippendorff's α {each.krippendorff_alpha:.2f}"
        rows.append(
            f"<li>{escape(each.who)} {whom}: <b>{each.share:.0%}</b> of {each.n} votes alike"
            f'<span class="muted">{alpha}</span></li>'
        )
    return f'<section class="board"><h3>Agreement</h3><ul class="agreement">{"".join(rows)}</ul></section>'
