"""Many runs on one page, made from what the runs have written; no model is loaded.

Runs whose configs differ in the seed alone are one recipe. Recipes are compared on the rows that all of them answered,
and those that cannot be compared are listed with the reason.
"""

from collections.abc import Sequence
from pathlib import Path

from heed.files import run_folder
from heed.report import write_report
from heed.saying import Say
from heed.study.curve import curve_of
from heed.study.page import write_page_of
from heed.study.runs import common_folder, read_runs
from heed.study.standings import Study, study
from heed.study.terminal import curve_text, study_text


def compare_runs(
    paths: Sequence[Path], output_dir: Path | None, metric: str | None, *, link: bool = False, say: Say = print
) -> Study:
    """Compare the runs, print the result, and write compared.html and compared.json.

    With `link` their reports are rewritten, with a link to the comparison.

    Raises UserError where there is nothing to compare, or a run's file is damaged.
    """
    runs = read_runs(paths)
    found = study(runs, metric)
    folder = output_dir or common_folder([run.folder for run in runs])
    run_folder.make_folder(folder)
    curve = curve_of(found)
    as_json = found.as_json(folder) | {"curve": curve.as_json() if curve else None}
    run_folder.write_json(folder / run_folder.STUDY_FILE, as_json)
    write_page_of(found, curve, folder / run_folder.STUDY_PAGE)
    if link:
        for run in runs:
            write_report(run.folder)
    say(study_text(found) + (f"\n\n{curve_text(curve, found)}" if curve else ""))
    say(f"\npage      {folder / run_folder.STUDY_PAGE}")
    return found
