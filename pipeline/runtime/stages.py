"""The stages, each declared once: the workflow, the command line, job records, the lock and the
README ask here, and nothing lists them a second time.

A new stage is three files (`workflow/rules/<room>.smk`; `pipeline/<room>/stage.py`;
`pipeline/config/<room>.py` with its section of the config and what its job is told) and an entry
here, from which its command is made and its section becomes part of the config.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

ARRAYS = ("numpy", "pandas", "h5py")
SLIDES = ("openslide-python", "tifffile", "imagecodecs", "pydicom", "opencv-python-headless")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: of its rule, its job records and its logs.
        room: the rule's file in `workflow/rules/`, and the folder of `pipeline/`.
        command: what follows `python -m pipeline`.
        config: the sections of the config that it is told of.
        libraries: distributions that its numbers depend on; each of its jobs writes down which
            versions it ran with.
        tables: patterns of what it writes last and makes again from finished pieces in seconds,
            below `results/<cohort>/`; they go when nobody knows what made them.
        does: for the README.
        writes: for the README, below `results/<cohort>/`.
        job: `module:class` below `pipeline.config`, what its `--cfg` is read as.
        module: below `pipeline`, the one whose `run(job=…, root=…, …)` does the work; empty: the
            room's `stage`.
        options: of the command besides `--cfg` and `--root`, names of `commands.options.OPTIONS`;
            `run` gets them, but for `gpus`, which are claimed before.
        torchrun: whether several GPUs are several processes that share its work.
        function: `module:name` below `pipeline.commands`, for a command that is not made of `job`
            and `options`.
    """

    name: str
    room: str
    command: str
    config: tuple[str, ...]
    libraries: tuple[str, ...]
    tables: tuple[str, ...]
    does: str
    writes: str
    job: str = ""
    module: str = ""
    options: tuple[str, ...] = ()
    torchrun: bool = False
    function: str = ""

    def job_class(self) -> Any:
        """The class that its `--cfg` is read as."""
        return _named("pipeline.config", self.job)

    def run(self) -> Callable[..., None]:
        """What does the work; its module may import torch."""
        return _named("pipeline", f"{self.module or f'{self.room}.stage'}:run")

    def own_command(self) -> Callable[..., None] | None:
        """What the command calls where it is not made of the declaration."""
        return _named("pipeline.commands", self.function) if self.function else None


def _named(package: str, place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), name)


STAGES = (
    Stage(
        name="cohort_chunk",
        room="cohort",
        command="cohort chunk",
        function="slides:cohort_chunk",
        config=("cohort",),
        libraries=(*ARRAYS, "tifffile", "opencv-python-headless", "scikit-learn"),
        tables=("slides/[0-9]*.parquet",),
        does="one chunk's slides; those of the embedded cohort are drawn",
        writes="`slides/<chunk>.parquet`",
    ),
    Stage(
        name="cohort",
        room="cohort",
        command="cohort check",
        job="cohort:CohortJob",
        options=("base",),
        config=("cohort", "tasks"),
        libraries=(*ARRAYS, "tifffile", "opencv-python-headless", "scikit-learn"),
        tables=("cohort.json",),
        does="checks the sheet and its labels",
        writes="`slides.parquet`, `cohort.json`",
    ),
    Stage(
        name="tiling",
        room="tiling",
        command="tiling",
        function="slides:tiling",
        config=("tiling",),
        libraries=(*ARRAYS, *SLIDES, "pillow", "torch", "timm"),
        tables=("tiles*/manifest/*.json",),
        does="tissue, artefacts, tiles of a physical size (within `mpp_tolerance`, 5 %; what was "
        "read is recorded), QC picture",
        writes="`tiles/<slide>.h5`, `.geojson`, `tiles/qc/`",
    ),
    Stage(
        name="tiling_overview",
        room="tiling",
        command="tiling-overview",
        function="slides:tiling_overview",
        config=(),
        libraries=("numpy", "h5py", "tifffile", "imagecodecs", "opencv-python-headless"),
        tables=("tiles/overview.csv",),
        does="a table and a contact sheet of all slides",
        writes="`tiles/overview.csv`, `tiles/contact_sheet.jpg`",
    ),
    Stage(
        name="pretraining",
        room="pretraining",
        command="pretraining",
        job="pretraining:PretrainingJob",
        options=("teacher", "workers", "gpus", "device"),
        torchrun=True,
        config=("pretraining",),
        libraries=(
            *ARRAYS,
            *SLIDES,
            "pillow",
            "torch",
            "timm",
            "lightly",
            "open_clip_torch",
            "transformers",
        ),
        tables=(),  # an encoder takes hours, and its state goes on where it was
        does="a tile encoder that learns from the cohort's own tiles, without labels; then it is a "
        "teacher",
        writes="`teachers/<name>/`",
    ),
    Stage(
        name="extraction_check",
        room="extraction",
        command="extraction-check",
        function="slides:extraction_check",
        config=("extraction",),
        libraries=(
            "numpy",
            "h5py",
            "opencv-python-headless",
            "torch",
            "timm",
            "open_clip_torch",
            "transformers",
        ),
        tables=(),  # it holds the revision of the weights, which must not change unasked
        does="each teacher once, before a GPU is asked for: licence, token, weights, output",
        writes="`features/<teacher>/check.json`",
    ),
    Stage(
        name="extraction",
        room="extraction",
        command="extraction",
        function="slides:extraction",
        config=("extraction",),
        libraries=(*ARRAYS, *SLIDES, "pillow", "torch", "timm", "open_clip_torch", "transformers"),
        tables=("features/*/manifest/*.json",),
        does="each teacher: low, mid and high features in one forward pass; or imported files "
        "(`extraction_import`)",
        writes="`features/<teacher>/<slide>.h5`",
    ),
    Stage(
        name="slide_encoders",
        room="slide_encoders",
        command="slide-encoders",
        job="slide_encoders:SlideEncodersJob",
        options=("teacher", "chunk", "out", "gpus", "device"),
        config=("extraction",),
        libraries=("numpy", "h5py", "torch", "timm", "transformers"),
        tables=(),  # like extraction's, which the pattern there covers
        does="each teacher with `source: slide`: a vector for a slide, or for each of its regions, "
        "from the features of a tile teacher",
        writes="`features/<teacher>/<slide>.h5`",
    ),
    Stage(
        name="mapping",
        room="mapping",
        command="mapping",
        function="cases:mapping",
        config=("mapping",),
        libraries=ARRAYS,
        tables=("cohort_flow.json",),
        does="what became of every slide: coverage, failure ledger",
        writes="`coverage.csv`, `ledger.csv`, `cohort_flow.json`",
    ),
    Stage(
        name="mapping_check",
        room="mapping",
        command="mapping-check",
        function="cases:mapping_check",
        config=("mapping",),
        libraries=ARRAYS,
        tables=("case_to_features.json",),
        does="too many slides lost end the run; case → teacher → files",
        writes="`case_to_features.json`, `cases.parquet`",
    ),
    Stage(
        name="probing",
        room="probing",
        command="probing",
        job="probing:ProbingJob",
        options=("teacher", "base"),
        config=("probing",),
        libraries=(
            *ARRAYS,
            "tifffile",
            "imagecodecs",
            "opencv-python-headless",
            "torch",
            "transformers",
            "timm",
            "scipy",
            "scikit-learn",
        ),
        tables=("probing/*.json",),
        does="each teacher's tiles as they are: linear, k-NN and few-shot probes of annotated "
        "tissue",
        writes="`probing/<teacher>.csv`",
    ),
    Stage(
        name="robustness",
        room="probing",
        command="robustness",
        job="probing:RobustnessJob",
        module="probing.robustness",
        options=("teacher", "base", "workers", "gpus", "device"),
        config=("probing",),
        libraries=(
            *ARRAYS,
            *SLIDES,
            "pillow",
            "torch",
            "timm",
            "open_clip_torch",
            "transformers",
            "scipy",
            "scikit-learn",
        ),
        tables=("probing/robustness/*.json",),
        does="the same tiles under other stains, blur, JPEG and scale: what becomes of each "
        "teacher's embeddings and probes",
        writes="`probing/robustness/<teacher>.csv`",
    ),
    Stage(
        name="probing_gains",
        room="probing",
        command="probing-gains",
        job="probing:ProbingGainsJob",
        module="probing.gains",
        options=(),
        config=("probing",),
        libraries=(
            *ARRAYS,
            "tifffile",
            "imagecodecs",
            "opencv-python-headless",
            "torch",
            "transformers",
            "timm",
            "scipy",
            "scikit-learn",
        ),
        tables=("probing/all/gains.json",),
        does="encoders that are made here, each against itself before it was trained",
        writes="`probing/all/gains.csv`",
    ),
    Stage(
        name="tile_students",
        room="probing",
        command="tile-students",
        job="probing:TileStudentsJob",
        module="probing.together",
        options=("base",),
        config=("probing",),
        libraries=(
            *ARRAYS,
            "tifffile",
            "imagecodecs",
            "opencv-python-headless",
            "torch",
            "transformers",
            "timm",
            "scipy",
            "scikit-learn",
            "scikit-survival",
        ),
        tables=("probing/all/*.json",),
        does="students of single tiles, compared with the probes",
        writes="`probing/all/`",
    ),
    Stage(
        name="folds",
        room="folds",
        command="folds",
        job="folds:FoldsJob",
        options=("task",),
        config=("folds", "tasks"),
        libraries=(*ARRAYS, "scipy", "scikit-learn"),
        tables=("folds/*/folds.json",),
        does="splits the cases: grouped by patient or site, stratified, pairwise disjoint",
        writes="`folds/<task>/` (also CLAM's `splits_<k>.csv`)",
    ),
    Stage(
        name="encoder_distillation",
        room="encoder_distillation",
        command="encoder-distillation",
        job="encoder_distillation:EncoderDistillationJob",
        options=("teacher", "workers", "gpus", "device"),
        torchrun=True,
        config=("encoder_distillation",),
        libraries=(
            *ARRAYS,
            *SLIDES,
            "pillow",
            "torch",
            "timm",
            "transformers",
            "open_clip_torch",
            "lightly",
        ),
        tables=(),  # an encoder takes hours, and its state goes on where it was
        does="one small tile encoder from all teachers, which then is a teacher of its own",
        writes="`teachers/<name>/`",
    ),
    Stage(
        name="training",
        room="training",
        command="training",
        function="cases:training",
        config=("training", "tasks"),
        libraries=(*ARRAYS, "torch", "transformers", "timm", "scikit-learn", "scikit-survival"),
        tables=("models/*/*/predictions.parquet",),
        does="single teachers, fusions, Shazam v1 and v2, ablations",
        writes="`models/<task>/<model>/`",
    ),
    Stage(
        name="training_linear",
        room="training",
        command="training-linear",
        function="cases:training_linear",
        config=("training", "tasks"),
        libraries=(*ARRAYS, "torch", "transformers", "timm", "scikit-learn", "scikit-survival"),
        tables=(),  # training names them
        does="linear models, all of a task in one job: each takes less time than a job's start",
        writes="`models/<task>/<model>/`",
    ),
    Stage(
        name="vision_language",
        room="vision_language",
        command="vision-language",
        job="vision_language:VisionLanguageJob",
        options=("teacher", "base"),
        config=("vision_language", "tasks"),
        libraries=(
            *ARRAYS,
            "pillow",
            "torch",
            "opencv-python-headless",
            "open_clip_torch",
            "transformers",
            "tokenizers",
            "scipy",
            "scikit-learn",
        ),
        tables=("vision_language/*/zero_shot.json",),
        does="cases asked in words: zero-shot predictions beside the trained models, maps, "
        "retrieval, few-shot curve",
        writes="`vision_language/<teacher>/`, `models/<task>/zero_shot_<teacher>/`",
    ),
    Stage(
        name="out_of_fold",
        room="training",
        command="out-of-fold",
        module="training.out_of_fold",
        function="cases:out_of_fold",
        config=("training", "tasks"),
        libraries=(*ARRAYS, "torch", "transformers", "timm", "scikit-learn", "scikit-survival"),
        tables=("models/*/*/out_of_fold.parquet",),
        does="models that are stacked: what they say of training cases which they have not seen",
        writes="`models/<task>/<model>/out_of_fold.parquet`",
    ),
    Stage(
        name="stacking",
        room="training",
        command="stacking",
        module="training.stacking",
        function="cases:stacking",
        config=("training", "tasks", "cohort"),
        libraries=(
            *ARRAYS,
            "torch",
            "transformers",
            "timm",
            "scipy",
            "scikit-learn",
            "scikit-survival",
        ),
        tables=(),
        does="ensembles of models, covariates, and models with covariates",
        writes="`models/<task>/<model>/`",
    ),
    Stage(
        name="pairs",
        room="pairs",
        command="pairs",
        job="pairs:PairsJob",
        options=("base", "workers", "gpus", "device"),
        torchrun=True,
        config=("pairs",),
        libraries=(
            *ARRAYS,
            *SLIDES,
            "pillow",
            "torch",
            "open_clip_torch",
            "transformers",
            "tokenizers",
            "lightly",
        ),
        tables=("teachers/*/facts.json",),
        does="a vision-language teacher that learns a lab's own words from captioned tiles",
        writes="`teachers/<name>/`",
    ),
    Stage(
        name="evaluation",
        room="evaluation",
        command="evaluation",
        function="cases:evaluation",
        config=("evaluation", "tasks"),
        libraries=(*ARRAYS, "scipy", "scikit-learn", "scikit-survival", "lifelines"),
        tables=("evaluation/*/evaluation.json",),
        does="intervals, paired comparisons, Kaplan–Meier, calibration",
        writes="`evaluation/<task>/`",
    ),
    Stage(
        name="external_predictions",
        room="external",
        command="external-predictions",
        job="external:ExternalPredictionsJob",
        module="external.predictions",
        options=("task", "model", "workers", "gpus", "device"),
        config=("external", "tasks", "training"),
        libraries=(
            *ARRAYS,
            "torch",
            "transformers",
            "timm",
            "scipy",
            "scikit-learn",
            "scikit-survival",
        ),
        tables=(),  # training names it
        does="models of another cohort's run on a cohort that had no part in it",
        writes="`models/<task>/<model>/predictions.parquet`",
    ),
    Stage(
        name="external",
        room="external",
        command="external",
        job="external:ExternalJob",
        options=("task",),
        config=("external", "evaluation", "tasks"),
        libraries=(
            *ARRAYS,
            "torch",
            "transformers",
            "timm",
            "scipy",
            "scikit-learn",
            "scikit-survival",
            "lifelines",
        ),
        tables=(),  # evaluation names it
        does="the same measures and comparisons, with cut-offs of the training cohort",
        writes="`evaluation/<task>/`",
    ),
    Stage(
        name="report",
        room="report",
        command="report",
        function="cases:report",
        config=("report",),
        libraries=(*ARRAYS, *SLIDES, "pillow", "matplotlib"),
        tables=("report.html",),
        does="one HTML page that opens offline",
        writes="`report.html`",
    ),
)
ROOMS = tuple(dict.fromkeys(stage.room for stage in STAGES))
TABLES = tuple(pattern for stage in STAGES for pattern in stage.tables)
# Rules that run another stage's command, and write job records under a name of their own.
ALSO = {
    "extraction_import": "extraction",
    "external_stacking": "external_predictions",
    "tiling_scale": "tiling",
}


def stage(name: str) -> Stage:
    """The stage of a rule.

    Args:
        name: of the rule.

    Raises:
        KeyError: no stage has it.
    """
    found = {one.name: one for one in STAGES}
    return found[ALSO.get(name, name)]
