"""Sections with the keys of something that a file registers, such as a loss.

There is one class for each, so that a key which is not used is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import Discriminator, Field, Tag, create_model

from pipeline.config.registry import Entry
from pipeline.config.section import Section

S = TypeVar("S", bound=Section)


def forms(base: type[S], key: str, entries: Mapping[str, Entry], default: str) -> list[type[S]]:
    """A class for each registered thing: the keys of the section, and the thing's own.

    Args:
        base: the section.
        key: which of its keys names the thing.
        entries: the things, by name.
        default: the name of the one that is meant when the key is left out.

    Raises:
        TypeError: a thing's own key is a key of the section already.
    """
    made = []
    for name, entry in entries.items():
        value: Any = Literal[name]
        chosen = {key: (value, default if name == default else ...)}
        own = own_fields(entry, taken=base.model_fields)
        made.append(create_model(form_name(base, name), __base__=base, **{**chosen, **own}))
    return made


def own_fields(entry: Entry, taken: Iterable[str]) -> dict[str, Any]:
    """The keys of a registered thing as pydantic takes them, with what they mean.

    Args:
        entry: the thing.
        taken: names that its keys must not have.

    Raises:
        TypeError: a key has such a name.
    """
    twice = {key.name for key in entry.keys} & set(taken)
    if twice:
        raise TypeError(
            f"{entry.module}: `{min(twice)}` is a key of the section already; rename the argument"
        )
    return {
        key.name: (Annotated[key.type, Field(description=key.meaning)], key.default)
        for key in entry.keys
    }


def one_of(classes: Iterable[type[Section]], which: Callable[[Any], str]) -> Any:
    """The type of a key that takes any of some sections.

    Args:
        classes: the sections.
        which: gives the name of the class that a mapping is to be read as, or a section is of.
    """
    known = tuple(classes)
    if len(known) == 1:
        return known[0]
    tagged = tuple(Annotated[cls, Tag(cls.__name__)] for cls in known)
    return Annotated[Union[tagged], Discriminator(which)]  # noqa: UP007


def form_name(base: type[Section], name: str) -> str:
    """What the class of a section with a registered thing's keys is called."""
    return f"{base.__name__}_{name}"
