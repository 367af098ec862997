"""The tables of config/README.md that are made of what files register: MIL models and losses.

`python -m tests.config.tables` writes them anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from pipeline import ROOT
from pipeline.config.models import aggregators, distillation_losses
from pipeline.config.registry import Entry, Key
from pipeline.config.tasks import TYPES, default_loss, losses

README = Path(ROOT) / "config" / "README.md"
COMMAND = "python -m tests.config.tables"
START = f"<!-- made by `{COMMAND}` -->"
END = "<!-- end -->"


def made() -> str:
    """The tables."""
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


def with_tables(text: str) -> str:
    """The README with its tables made anew."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{made()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
