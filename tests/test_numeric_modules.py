"""Who changes what is computed says whether numbers move: a raised version, or a changed line."""

from __future__ import annotations

from tests import numeric_modules
from tests.numeric_modules import code_hash

PLAIN = "def f(x):\n    return 2 * x\n"


def test_numeric_modules_are_as_recorded() -> None:
    now, before = numeric_modules.found(), numeric_modules.recorded()
    other = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    owners = sorted({numeric_modules.covered_by(name) for name in other} - {""})
    assert not other, (
        f"{len(other)} numeric module(s) changed: {', '.join(other)}. If results move, raise "
        f"VERSION (in the module itself, else in {', '.join(owners)}) and say why in the comment "
        f"above it; if none moves, leave it. Either way run `{numeric_modules.COMMAND}` and commit "
        "its file."
    )


def test_words_annotations_and_imports_do_not_count() -> None:
    said = (
        '"""Doc."""\nimport os\n\n\ndef f(x: int) -> int:\n    "Twice."\n    return 2 * x  # yes\n'
    )
    assert code_hash(said) == code_hash(PLAIN)
    messages = ["raise ValueError(f'{x}: not a number')", "raise ValueError(f'{y} is no number')"]
    assert code_hash(messages[0]) == code_hash(messages[1])
    assert code_hash("VERSION = 1\n" + PLAIN) == code_hash("# 2: why.\nVERSION = 2\n" + PLAIN)


def test_what_is_computed_counts() -> None:
    assert code_hash(PLAIN.replace("2", "3")) != code_hash(PLAIN)
    assert code_hash("x['area']") != code_hash("x['tiles']")
    assert code_hash("f'{x}.h5'") != code_hash("f'{x}.csv'")
    assert code_hash("@frozen\nclass A:\n    x: int = 1") != code_hash("class A:\n    x: int = 1")


def test_the_most_specific_entry_says_what_covers_a_module() -> None:
    covered_by = numeric_modules.covered_by
    assert covered_by("cohort/synthetic/aperio") == "cohort/synthetic/painting"
    assert covered_by("contracts/labels") == "folds/stage"
    assert covered_by("report/stage") == covered_by("contracts/case_map") == ""
    for owner in numeric_modules.COVERED_BY.values():
        assert numeric_modules.versions(owner), owner
