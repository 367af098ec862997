"""Tables of the READMEs that are made of the code: stages, MIL models and losses.

`python -m tests.tables` writes them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from pipeline import ROOT
from pipeline.config.models import aggregators, distillation_losses
from pipeline.config.pretraining import methods
from pipeline.config.registry import Entry, Key
from pipeline.config.tasks import TYPES, default_loss, losses
from pipeline.runtime.stages import STAGES

COMMAND = "python -m tests.tables"
START = f"<!-- made by `{COMMAND}` -->"
END = "<!-- end -->"


def stages() -> str:
    """One row a stage."""
    lines = [
        "| stage | `python -m pipeline` | what it does | config | under `results/<cohort>/` |",
        "|---|---|---|---|---|",
    ]
    for one in STAGES:
        config = ", ".join(f"`{section}`" for section in one.config)
        lines.append(f"| `{one.name}` | `{one.command}` | {one.does} | {config} | {one.writes} |")
    return "\n".join(lines)


def registered() -> str:
    """Aggregators and losses with their own keys."""
    lines = [
        "| `aggregator` | what it is | its own keys |",
        "|---|---|---|",
        *(_row(f"`{name}`", entry) for name, entry in aggregators().items()),
        "",
        "| task | `loss` | what it is | its own keys |",
        "|---|---|---|---|",
        *_losses(),
        "",
        "| `distillation.loss` | what it is | its own keys |",
        "|---|---|---|",
        *(_row(f"`{name}`", entry) for name, entry in distillation_losses().items()),
        "",
        "| `pretraining.teachers.<name>.method` | what it is | its own keys |",
        "|---|---|---|",
        *(_row(f"`{name}`", entry) for name, entry in methods().items()),
    ]
    return "\n".join(lines)


def _losses() -> Iterable[str]:
    for kind in TYPES:
        for name, entry in losses(kind).items():
            default = " (default)" if name == default_loss(kind) else ""
            yield _row(f"{kind} | `{name}`{default}", entry)


def _row(first: str, entry: Entry) -> str:
    keys = "<br>".join(_key(key, entry) for key in entry.keys) or "none"
    return f"| {first} | {entry.summary} *{entry.source}* | {keys} |"


def _key(key: Key, entry: Entry) -> str:
    default = yaml.safe_dump(key.default, default_flow_style=True).split("\n")[0]
    only = " Not with `faithful: true`." if key.name in entry.published else ""
    return f"`{key.name}` (`{default}`): {key.meaning}{only}"


MADE: dict[Path, Callable[[], str]] = {
    ROOT / "README.md": stages,
    ROOT / "config" / "README.md": registered,
}


def with_table(page: Path) -> str:
    """The page's text with its tables made again."""
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{MADE[page]()}\n\n{END}{after}"


if __name__ == "__main__":
    for page in MADE:
        page.write_text(with_table(page))
