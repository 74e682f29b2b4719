"""How anything tells the person who started it what it found."""

from collections.abc import Callable

Say = Callable[[str], object]
