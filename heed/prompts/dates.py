"""Templates that write today's date, with that date written out: a prompt must be the same on every day."""

import re
from datetime import date

DAY = date(2024, 7, 26)  # what Llama 3's own template writes where no clock is at hand
CALL = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<form>[^'"]*)(?P=quote)\s*\)""")


def reads_clock(template: str) -> bool:
    return "strftime_now(" in template.replace(" ", "")


def with_fixed_date(template: str) -> str:
    """The template with DAY in place of each date that it would have asked the clock for."""
    return CALL.sub(lambda call: f"'{DAY.strftime(call['form'])}'", template)
