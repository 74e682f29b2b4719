"""Keys of compare_runs.py."""

from dataclasses import dataclass

from heed.config.keys import key


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Keys of compare_runs.py."""

    runs: list[str] = key(help="run folders, or folders of runs; also as words without a key")
    output_dir: str | None = key(
        None, help="where compared.html and compared.json go; null: the folder that all runs are in"
    )
    headline_metric: str | None = key(
        None, help="the metric that the verdict is about, or judge_score; null: that of most runs"
    )
