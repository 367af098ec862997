"""Version numbers of the code that makes results.

A result is made again when its config, its inputs or one of its version numbers changed; the text
of the code does not count. A person raises a number when the numbers that the code makes change.

It stands in the module that it is about, as `VERSION`; where one module holds several independent
things, as `VERSIONS` by their names. A comment above says why it was raised. The numbers are read
from the text of the module: the workflow asks for them at each parse, and must not load torch.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache

from pipeline import ROOT

Versions = dict[str, int]

# From the name to the next blank line.
_STATEMENT = re.compile(r"^VERSIONS?\b.*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


def version_of(module: str, name: str = "") -> int:
    """The version of a module, or of one of the things that it holds.

    Args:
        module: its dotted name.
        name: a key of its `VERSIONS`; empty for its `VERSION`.

    Raises:
        KeyError: the module states no such version.
    """
    try:
        return versions_in(module)[name]
    except KeyError:
        raise KeyError(
            f"{module} has no {f'VERSIONS[{name!r}]' if name else 'VERSION'}; see CONTRIBUTING.md"
        ) from None


@lru_cache(maxsize=256)
def versions_in(module: str) -> Versions:
    """All versions that a module states by name; '' is that of its `VERSION`."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    found: Versions = {}
    for statement in _STATEMENT.findall(path.read_text()):
        node = ast.parse(statement).body[0]
        assert isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        value = ast.literal_eval(node.value)
        found |= value if isinstance(value, dict) else {"": value}
    return found
