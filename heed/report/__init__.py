"""The report of a run: one HTML file made from the files that training and evaluation left.

No model is loaded and nothing is measured again. A file that is not there leaves its part out, and the page says which
file that is and what makes it.
"""

from pathlib import Path
from typing import Any

from heed import __version__
from heed.files import run_folder
from heed.measure.verdict import decides
from heed.pages import render_page, write_page
from heed.report import charts, words
from heed.report.answers import browser_data, worst_first
from heed.report.controls import controls_view
from heed.report.evidence import Evidence, read_evidence
from heed.report.facts import contract, provenance, rejected, spending
from heed.report.headline import headline, tiles
from heed.report.lost import losses_text
from heed.report.measured import Measured, measured
from heed.report.missing import missing
from heed.report.notices import cut_notice, line, notices
from heed.report.outcomes import LISTED, outcomes, worse
from heed.report.size import fit
from heed.saying import Say, count

FOLDER = Path(__file__).parent


def write_report(folder: Path) -> Path:
    """Write report.html into an evaluation folder (a run folder, or the output_dir of an evaluation).

    Raises UserError for a file that is damaged.
    """
    evidence = read_evidence(folder)
    return write_report_of(evidence, measured(evidence), lambda text: None)


def write_report_of(evidence: Evidence, found: Measured, say: Say) -> Path:
    data, values = browser_data(evidence, found.primary), page_values(evidence, found)
    answers, cut = fit(data, [*(each.row_id for each in values["worse"][:LISTED]), *worst_first(data)[:LISTED]])
    shortened = cut_notice(evidence, cut) if cut else None
    if shortened:
        say(line(shortened))
    html = render_page(
        FOLDER / "page.jinja",
        styles=[FOLDER / "style.css"],
        scripts=[FOLDER / "page.js"],
        data={"answers": answers},
        shortened=shortened,
        **values,
    )
    path = evidence.folder / run_folder.REPORT_FILE
    write_page(path, html)
    return path


def page_values(evidence: Evidence, found: Measured) -> dict[str, Any]:
    """What the template shows, under the names it uses."""
    return {
        "evidence": evidence,
        "title": evidence.models.get(evidence.ours or "") or evidence.folder.name,
        "headline": headline(evidence, found.primary),
        "hero": charts.hero(evidence, found.primary),
        "missing": missing(evidence),
        "tiles": tiles(evidence, found.primary),
        "notices": notices(evidence, found),
        "tables": {
            "Against the reference": found.metrics,
            "By a judge": found.judged,
            "How answers end": found.stops,
            "On plain text": found.plain,
        },
        "decides": decides(words.in_sentence(found.primary.label)) if found.primary else "",
        "parts": found.parts,
        "controls": controls_view(evidence),
        "outcomes": outcomes(evidence, [*found.metrics, *(each for each in found.parts if each.system == "metrics")]),
        "clusters": (evidence.evaluation or {}).get("clusters"),
        "losses_text": losses_text(evidence, found),
        "worse": worse(evidence),
        "listed": LISTED,
        "judges": [charts.judge_view(evidence, judge) for judge in evidence.judges],
        "agreement": (evidence.judging or {}).get("agreement", []),
        "agreement_chart": charts.agreement(evidence),
        "losses": charts.losses(evidence),
        "benchmarks": found.benchmarks,
        "rejected": rejected(evidence),
        "arena": charts.arena(evidence),
        "contract": contract(evidence),
        "spending": spending(evidence),
        "provenance": provenance(evidence),
        "look": charts.look,
        "strip": charts.result_strip,
        "shares": charts.outcome_shares,
        "count": count,
        "number": words.number,
        "signed": words.signed,
        "interval_text": words.interval_text,
        "version": __version__,
        "now": run_folder.now(),
    }
