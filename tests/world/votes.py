"""A vote to count."""

from heed.arena.votes import Vote

VOTE = Vote(
    time="2026-11-22T06:00:00+0000", voter="Ada", a="base", b="tuned", winner="b", first="a", row_id=3, prompt="Say x."
)
