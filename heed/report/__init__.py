"""The report of a run: one HTML file made from the files that training and evaluation left behind.

No model is loaded and nothing is measured again. A file that is not there leaves its part out, and the page says which
file that is and what makes it.
"""

from pathlib import Path
from typing import Any

from heed import __version__
from heed.files import run_folder
from heed.pages import render_page, write_page
from heed.report import charts, findings
from heed.report.answers import browser_data
from heed.report.evidence import Evidence, read_evidence
from heed.report.facts import contract, provenance, rejected, spending
from heed.report.headline import headline, tiles

FOLDER = Path(__file__).parent


def write_report(folder: Path) -> Path:
    """Write report.html into an evaluation folder (a run folder, or the output_dir of an evaluation).

    Raises UserError for a file that is damaged.
    """
    evidence = read_evidence(folder)
    html = render_page(
        FOLDER / "page.jinja",
        styles=[FOLDER / "style.css"],
        scripts=[FOLDER / "page.js"],
        data={"answers": browser_data(evidence)},
        **page_values(evidence),
    )
    path = folder / run_folder.REPORT_FILE
    write_page(path, html)
    return path


def page_values(evidence: Evidence) -> dict[str, Any]:
    """What the template shows, under the names it uses."""
    judges = (evidence.judging or {}).get("judges", [])
    return {
        "evidence": evidence,
        "title": evidence.models.get(evidence.ours or "") or evidence.folder.name,
        "headline": headline(evidence),
        "hero": charts.hero(evidence),
        "tiles": tiles(evidence),
        "notices": findings.notices(evidence),
        "tables": {
            "Against the reference": whole(findings.findings(evidence, ("metrics",))),
            "By a judge": findings.judge_findings(evidence),
            "How answers end": whole(findings.findings(evidence, ("stop",))),
        },
        "parts": [each for each in findings.findings(evidence, ("metrics", "stop")) if each.part],
        "outcomes": findings.outcomes(evidence),
        "worse": worse(evidence),
        "judges": [charts.judge_view(evidence, judge) for judge in judges],
        "agreement": (evidence.judging or {}).get("agreement", []),
        "agreement_chart": charts.agreement(evidence),
        "losses": charts.losses(evidence),
        "benchmarks": findings.benchmarks(evidence),
        "rejected": rejected(evidence),
        "arena": charts.arena(evidence),
        "contract": contract(evidence),
        "spending": spending(evidence),
        "provenance": provenance(evidence),
        "look": charts.look,
        "strip": charts.finding_strip,
        "shares": charts.outcome_shares,
        "label": findings.label,
        "number": findings.number,
        "signed": findings.signed,
        "interval_text": findings.interval_text,
        "version": __version__,
        "now": run_folder.now(),
    }


def whole(found: list[findings.Finding]) -> list[findings.Finding]:
    """Without what was measured again on a part of the rows."""
    return [each for each in found if not each.part]


def worse(evidence: Evidence) -> list[dict[str, Any]]:
    """Rows that the evaluated system does worse than the other, each by the metric that it loses most by."""
    answers = evidence.responses.get(evidence.ours or "", {})
    most: dict[int, dict[str, Any]] = {}
    for each in (evidence.comparison or {}).get("worse", []):  # the largest loss comes first
        most.setdefault(each["row_id"], each)
    return [
        each
        | {
            "label": findings.label(each["metric"]),
            "instruction": answers[row_id].instruction if row_id in answers else "",
        }
        for row_id, each in most.items()
    ]
