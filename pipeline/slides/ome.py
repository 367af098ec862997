"""What the XML of an OME-TIFF says of each of its images.

A file may hold several: a macro picture before the slide, the scenes of one glass. Scale, channels
and objective belong to one image and say nothing of the others.
"""

from __future__ import annotations

import dataclasses
import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

# `&micro;` is HTML and no XML; writers use it all the same.
_NAMED = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)[A-Za-z]\w*;")
_FLUORESCENT = ("Fluor", "EmissionWavelength", "ExcitationWavelength")


@dataclasses.dataclass(frozen=True)
class OmeImage:
    """One `Image` of the XML.

    Attributes:
        name: as the file states it, or an empty text.
        size: (width, height), or None where it is not stated.
        physical: texts of `PhysicalSizeX`, `PhysicalSizeXUnit` and so on, as far as stated.
        channels: names of the channels that have one, in lower case.
        fluorescent: whether a channel states a fluorophore or a wavelength.
        magnification: of the objective that this image names, or None.
    """

    name: str
    size: tuple[int, int] | None
    physical: dict[str, str]
    channels: tuple[str, ...]
    fluorescent: bool
    magnification: str | None


def read_images(xml: str) -> list[OmeImage]:
    """All images in the order of the XML; none where it cannot be parsed."""
    try:
        root = ET.fromstring(_NAMED.sub(lambda found: html.unescape(found[0]), xml))
    except ET.ParseError:
        return []
    powers = {
        objective.get("ID"): objective.get("NominalMagnification")
        for objective in _all(root, "Objective")
    }
    return [_image(element, powers) for element in _children(root, "Image")]


def image_of(
    images: Sequence[OmeImage], size: tuple[int, int], name: str, place: int, places: int
) -> OmeImage | None:
    """The image that describes given pixels.

    Args:
        images: from `read_images`.
        size: (width, height) of the pixels.
        name: of their series, as tifffile gives it.
        place: number of the series in the file, from 0.
        places: how many series there are.
    """
    fitting = [image for image in images if image.size in (size, None)]
    if len(images) == places and images[place] in fitting:
        return images[place]
    named = [image for image in fitting if image.name and image.name == name]
    return next(iter(named or fitting), None)


def _image(element: ET.Element, powers: dict[str | None, str | None]) -> OmeImage:
    pixels = next(iter(_children(element, "Pixels")), None)
    facts = dict(pixels.attrib) if pixels is not None else {}
    channels = _all(element, "Channel")
    settings = next(iter(_children(element, "ObjectiveSettings")), None)
    alone = next(iter(powers.values())) if len(powers) == 1 else None
    try:
        size = int(facts["SizeX"]), int(facts["SizeY"])
    except (KeyError, ValueError):
        size = None
    return OmeImage(
        name=element.get("Name", ""),
        size=size,
        physical={key: value for key, value in facts.items() if key.startswith("PhysicalSize")},
        channels=tuple(c.get("Name", "").lower() for c in channels if c.get("Name")),
        fluorescent=any(channel.get(key) for channel in channels for key in _FLUORESCENT),
        magnification=powers.get(settings.get("ID")) if settings is not None else alone,
    )


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: ET.Element, name: str) -> list[ET.Element]:
    return [child for child in element if _local(child) == name]


def _all(element: ET.Element, name: str) -> list[ET.Element]:
    return [inner for inner in element.iter() if _local(inner) == name]
