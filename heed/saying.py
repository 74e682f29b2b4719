"""How anything tells the person who started it what it found."""

from collections.abc import Callable

Say = Callable[[str], object]


def count(number: int, what: str, many: str | None = None) -> str:
    """1 row, 2,000 rows; `many` where an s does not do."""
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def writable(text: str) -> str:
    """Half a surrogate pair, which a server's JSON can hold and UTF-8 cannot, becomes a question mark."""
    return text.encode(errors="replace").decode()
