"""Writes the tables of docs/performance.md from the figures in a JSON file.

python -m bench.table docs/performance-shapes.json
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.jobs import Job

HEADER = (
    "| variant | examples/s | supervised tok/s | tok/s | useful TFLOP/s | share of the limit | computed | CPU s/step "
    "| peak MB | mean loss | Heed is faster, by the clock | by CPU time | wanted |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def write_tables(figures: Path, page: Path) -> None:
    """Prints the tables and puts them into the page, at the markers named after the file."""
    text = render(json.loads(figures.read_text()))
    print(text)
    put(page, figures.stem, text)


def put(page: Path, name: str, text: str) -> None:
    """Replaces what is between the page's markers `<!-- NAME -->` and `<!-- /NAME -->`.

    A page without the markers stays as it is, so that a trial run with --out elsewhere changes no documentation.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = page.read_text() if page.exists() else ""
    if start in old and end in old:
        before, rest = old.split(start, 1)
        page.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end, 1)[1]}")


def render(report: Mapping[str, Any]) -> str:
    parts = [where(report)]
    parts += [table(found) for found in report["results"]]
    parts += [f"{name}: {json.dumps(value)}" for name, value in report.get("also", {}).items()]
    return "\n\n".join(parts)


def where(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    return (
        f"Machine: {gpu}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads used; {versions}. "
        f"{report['minutes']:.1f} minutes."
    )


def table(found: Mapping[str, Any]) -> str:
    job, variants = found["job"], found["variants"]
    rounds = min(len(variant["runs"]) for variant in variants.values())
    title = (
        f"**{Job(**job).name}**, {job['batch_size']} examples a step, {job['steps']} steps x {rounds} rounds; "
        f"limit {found['limit_tflops']:.3g} TFLOP/s"
    )
    rows = [row(name, variant, found) for name, variant in variants.items()]
    return "\n".join([title, "", HEADER, *rows])


def row(name: str, variant: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    faster = found["heed_is_faster"].get(name)
    at_least = found["at_least"].get(name)
    cells = [
        name,
        f"{variant['examples_per_second']:.2f}",
        f"{variant['supervised_per_second']:.0f}",
        f"{variant['tokens_per_second']:.0f}",
        f"{variant['useful_tflops']:.3g}",
        f"{variant['useful_tflops'] / found['limit_tflops']:.0%}",
        f"{variant['computed_tflops'] / found['limit_tflops']:.0%}",
        f"{variant['cpu_seconds_per_step']:.2f}",
        f"{variant['peak_mb']:.0f}",
        f"{variant['loss']:.4f}",
        times(faster["wall"]) if faster else "",
        times(faster["cpu"]) if faster else "",
        f"{at_least:.1f} x" if at_least else "",
    ]
    return "| " + " | ".join(cells) + " |"


def times(ratio: list[float]) -> str:
    middle, least, most = ratio
    return f"{middle:.2f} x [{least:.2f}..{most:.2f}]"


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]), Path("docs/performance.md"))
