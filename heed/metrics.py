"""(response, reference) -> number. No model, no network."""


def exact_match(response: str, reference: str) -> float:
    """1.0 when both are the same text, surrounding white space aside."""
    return float(response.strip() == reference.strip())


def mean(values: list[float]) -> float:
    """Raises ValueError for no values: a mean of nothing is not 0."""
    if not values:
        raise ValueError("mean of no values")
    return sum(values) / len(values)
