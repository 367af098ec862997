"""What is asked in words, and what is learned from captions, said before a run starts."""

from __future__ import annotations

from pipeline.config.pairs import PairsConfig
from pipeline.config.vision_language import VisionLanguageConfig
from pipeline.config.whole import Config
from pipeline.encoders import speaking
from pipeline.runtime.progress import duration

# Cosines with prompts that one core reads, smooths and pools in a second, reckoned low from
# benchmarks/vision_language.py.
COSINES_PER_SECOND = 1e7


def lines(config: Config, tiles: int | None) -> tuple[str, ...]:
    """A line for each of the two stages that the config has.

    Args:
        config: the config.
        tiles: of the cohort; None where no slide could be sampled.
    """
    found = []
    pairs = config.section(PairsConfig)
    if pairs is not None:
        course = pairs.course
        found.append(
            f"  pairs: `{pairs.name}` learns from {course.steps * course.batch_size:,} tiles with "
            f"their captions at most ({course.steps:,} steps of {course.batch_size})"
        )
    words = config.section(VisionLanguageConfig)
    if words is not None:
        classes = sum(len(classes) for classes in words.prompts.values())
        columns = classes * (1 + words.draws)
        asked = len(speaking.speaking(config))
        each = columns * len(words.smoothing) + len(words.tissue)
        time = ""
        if tiles is not None:
            seconds = asked * tiles * each / COSINES_PER_SECOND
            time = f", about {duration(seconds)} on one core"
        found.append(
            f"  words: {asked} teacher(s) asked, {columns} prompt vectors, "
            f"{len(words.smoothing)} way(s) of smoothing{time}"
        )
    return tuple(found)
