"""The captions of Snakemake's own report render for every task and parse as reStructuredText."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_string
from jinja2 import Environment, StrictUndefined

from tests.report import fabricate

FOLDER = Path(__file__).parents[2] / "workflow" / "report"
WILDCARDS = {"task": "a-task", "spoken": "a-teacher"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.rst")), ids=lambda p: p.stem)
def test_a_caption_renders(path: Path) -> None:
    job = SimpleNamespace(config=fabricate.CONFIG, wildcards=SimpleNamespace(**WILDCARDS))
    template = Environment(undefined=StrictUndefined).from_string(path.read_text())
    text = template.render(snakemake=job)
    html = publish_string(text, writer="html5", settings_overrides={"halt_level": 2}).decode()
    assert "{{" not in html
    for name, value in WILDCARDS.items():
        assert (f"wildcards.{name}" in path.read_text()) == (value in html)
