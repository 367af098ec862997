"""`recipe: gigapath`: a student's tiles are judged one by one and all together.

L = β · L_hidden + (1 - β) · L_slide. L_hidden is what every student learns by: its heads' answers
against what the teachers said of each tile. L_slide compares two vectors of the slide: a frozen
slide encoder reads the student's answers in one teacher's place, and that teacher's features of the
same tiles. It couples all tiles of a slide, so that gradients are made in two passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.config.encoder_distillation import EncoderStudent
from pipeline.encoder_distillation.learner import Distillation
from pipeline.encoder_distillation.live import Live
from pipeline.encoder_distillation.slide_view import SlideView, apart
from pipeline.encoder_distillation.standardise import Standard
from pipeline.encoder_distillation.student import Student
from pipeline.encoder_distillation.two_pass import drawn, two_pass
from pipeline.encoders.transforms import Transform
from pipeline.tile_training.loader import Batch
from pipeline.tile_training.slides import TiledSlide
from pipeline.tile_training.trainer import SCORE, Pass

COSINE = "slide_cosine"
LARGEST_SEED = 2**62


class SlideDistillation(Distillation):
    """A student, its teachers' answers, and a frozen view of whole slides.

    A batch holds some slides, each with many of its tiles; a slide is one bag.

    Args:
        module: the student, on the device.
        cfg: its config.
        transform: of its encoder.
        standards: teacher -> how its features are standardised.
        held_out: batches of held-out tiles, of one slide each.
        live: teachers whose patch tokens are learned, too; None: nobody's.
        reads: the teacher whose features the view reads.
        see: the view.
        slides: that batches are drawn from, and those that are held out.
    """

    def __init__(
        self,
        module: Student,
        cfg: EncoderStudent,
        transform: Transform,
        standards: Mapping[str, Standard],
        held_out: Callable[[], Iterator[Batch]],
        live: Live | None = None,
        *,
        reads: str,
        see: SlideView,
        slides: tuple[Sequence[TiledSlide], Sequence[TiledSlide]],
    ) -> None:
        super().__init__(module, cfg, transform, standards, held_out, live)
        assert cfg.slide is not None
        self._slide = cfg.slide
        self._reads, self._see = reads, see
        self._learned, self._held = slides

    def backward(self, batch: Batch, now: Pass) -> dict[str, Tensor]:
        """See `Learner.backward`."""
        bags = [in_order(batch, int(slide)) for slide in batch.slides.unique()]
        sums: dict[str, Tensor] = {}
        for bag in bags:
            for name, value in self._bag(bag, now, len(bags)).items():
                sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value
        return {name: value / len(bags) for name, value in sums.items()}

    def _bag(self, bag: Batch, now: Pass, bags: int) -> dict[str, Tensor]:
        each = self._slide.tile_batch
        starts = range(0, len(bag), each)
        draw = torch.randint(LARGEST_SEED, (), generator=now.generator, device=bag.tiles.device)
        seed, heard = int(draw), self.heard(now.generator)
        beta, share = self._slide.beta, now.share / bags
        found: dict[str, Tensor] = {}

        def part(number: int) -> tuple[Tensor, Tensor]:
            some = bag.part(starts[number], starts[number] + each)
            of_all = len(some) / len(bag)
            with drawn(seed + number, bag.tiles.device) as generator:
                total, losses, answers = self.tile_loss(some, now, generator, heard)
            if torch.is_grad_enabled():
                for name, value in losses.items():
                    found[name] = found.get(name, torch.zeros_like(value)) + value * of_all
            said = self._standards[self._reads].back(answers[self._reads][-1])
            return said, beta * share * of_all * total

        slide = self._learned[int(bag.slides[0])]
        places = bag.places.cpu().numpy()
        wanted = self._see(bag.answers[self._reads].float(), slide, places)

        def whole(features: Tensor) -> Tensor:
            loss = apart(self._see(features, slide, places), wanted)
            found["loss_slide"] = loss.detach()
            return (1 - beta) * share * loss

        total = two_pass(self.module, part, len(starts), whole)
        return {"loss": total / share, **found}

    @torch.no_grad()
    def validate(self, module: nn.Module) -> dict[str, float]:
        """As `Distillation.validate`, and the mean cosine of slide vectors; both make the score."""
        row = super().validate(module)
        cosines = []
        for bag in self._held_out():
            places = bag.places.cpu().numpy()
            slide = self._held[int(bag.slides[0])]
            answers = self.answers(module, bag)[self._reads][-1]
            said = self._see(self._standards[self._reads].back(answers), slide, places)
            wanted = self._see(bag.answers[self._reads].float(), slide, places)
            cosines.append(1 - float(apart(said, wanted)))
        row[COSINE] = sum(cosines) / len(cosines)
        beta = self._slide.beta
        return row | {SCORE: beta * row[SCORE] + (1 - beta) * row[COSINE]}


def in_order(batch: Batch, slide: int) -> Batch:
    """A slide's tiles by their places, each once: a view of the whole may depend on the order.

    Args:
        batch: some slides' tiles.
        slide: its number.
    """
    rows = torch.nonzero(batch.slides == slide)[:, 0]
    places, which = batch.places[rows].unique(return_inverse=True)
    first = torch.empty_like(places)
    first[which] = rows
    return batch.take(first)
