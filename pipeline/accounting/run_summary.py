"""What a run used, what it lost and where its report is: the last lines on the screen, and the
first on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.contracts.cohort_flow import CohortFlow, read_cohort_flow
from pipeline.errors import ArtifactError

LEDGER = "ledger.csv"
REPORT = "report.html"
UNKNOWN = "  No slide was accounted for yet: the stage `mapping` does that."
AGAIN = "When this is corrected, give the same command again: what is finished is kept."


def finished(root: Path) -> str:
    """The last lines of a run that ended well, or had nothing to do; empty before the first one.

    Args:
        root: the cohort's results folder.
    """
    lines = _account(root, {"ledger": LEDGER, "report": REPORT})
    return "\n".join([f"{root.name}: finished.", *lines]) if lines else ""


def failed(root: Path, jobs: Sequence[str]) -> str:
    """The last lines of a run that failed.

    Args:
        root: the cohort's results folder.
        jobs: a line for each failed job.
    """
    count = f"{len(jobs)} job{'s' * (len(jobs) != 1)} failed"
    told = [f"  {line}" for line in jobs]
    # A report that lies there tells of an earlier run.
    kept = _account(root, {"ledger": LEDGER}) or [UNKNOWN]
    return "\n".join([f"{root.name}: {count}.", *told, *kept, AGAIN])


def used_and_lost(flow: CohortFlow) -> dict[str, str]:
    """`slides` and `cases` -> how many came in, were used and were lost, with the reasons.

    Args:
        flow: what became of the slides and cases.
    """
    slides, cases = flow.slides, flow.cases
    reasons = ", ".join(
        f"{n} {kind.replace('_', ' ')}"
        for kind, n in sorted(flow.lost.items(), key=lambda found: (-found[1], found[0]))
    )
    warned = f"; {flow.warned} with a warning" if flow.warned else ""
    incomplete = cases.usable - cases.used
    without = cases.total - cases.usable
    why = [f"{without} without a usable slide"] * (without > 0)
    why += [f"{incomplete} without some teacher"] * (incomplete > 0)
    return {
        "slides": _counted(slides.total, slides.usable, reasons) + warned,
        "cases": _counted(cases.total, cases.used, ", ".join(why)),
    }


def _counted(total: int, used: int, reasons: str) -> str:
    lost = total - used
    return f"{total:,} in the sheet, {used:,} used, {lost:,} lost" + (
        f" ({reasons})" if reasons else ""
    )


def _account(root: Path, files: Mapping[str, str]) -> list[str]:
    try:
        counts = used_and_lost(read_cohort_flow(root))
    except (OSError, ArtifactError):
        return []
    lines = [f"  {name:<7} {text}" for name, text in counts.items()]
    for name, file in files.items():
        if (root / file).is_file():
            lines.append(f"  {name:<7} {root / file}")
    return lines
