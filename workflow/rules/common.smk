# What the rules share: the checked config, the slides by chunk, and the two params that make a job stale.
import atexit
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The package next to this workflow is the one that the rules run, here and on every node; also where
# another workflow uses this one as a module. A module from a remote place needs the package installed.
REPOSITORY = Path(str(workflow.current_basedir)).resolve().parent.parent
if (REPOSITORY / "pipeline").is_dir():
    sys.path.insert(0, str(REPOSITORY))

from pipeline.accounting import rates, run_summary, time_limits
from pipeline.cohort import covariates, labels
from pipeline.config.external import ExternalConfig
from pipeline.config.models import STACKS
from pipeline.config.reading import parse as parse_config
from pipeline.config.reading import refuse_double_keys
from pipeline.encoders import speaking, tile_scales
from pipeline.encoders.slide_level import inputs
from pipeline.errors import UserError
from pipeline.files import digests, recall
from pipeline.plan import (
    cohort_plan,
    encoder_jobs,
    estimate,
    lost_files,
    stage_params,
    stage_versions,
    teacher_lines,
)
from pipeline.runtime import (
    child_processes,
    gpu_locks,
    machine_errors,
    run_lock,
    run_watch,
    stages,
)
from snakemake.logging import logger

# A job on a cluster parses the workflow again: the mistakes have been looked for by then, and what
# the files are is known.
MAIN = workflow.is_main_process
RECALL = recall.open_recall(Path(".snakemake/shazam/recall.json"))

child_processes.export_package()
try:
    for configfile in workflow.configfiles if MAIN else ():
        refuse_double_keys(configfile)
    CONFIG = parse_config(config)
    COHORT = cohort_plan.cohort_plan(CONFIG, Path.cwd(), RECALL, check=MAIN)
except UserError as error:
    raise WorkflowError(str(error)) from None
except OSError as error:
    raise WorkflowError(machine_errors.remedy(error) or str(error)) from None

CHUNKS = COHORT.chunks
TEACHERS = CONFIG.extraction.teachers
IMPORTED = [t for t, facts in TEACHERS.items() if facts.source == "import"]
# `a+b` are teachers that share one decoding of the slides.
ENCODERS = ["+".join(group) for group in tile_scales.groups(CONFIG)]
SCALES = list(tile_scales.scales(CONFIG))
RUN = [teacher for group in ENCODERS for teacher in group.split("+")]
SLIDE_ENCODERS = list(inputs.slide_teachers(CONFIG))
# Folders of `features/` that models learn from.
MAPPED = tile_scales.feature_folders(CONFIG)
# Besides the config's own, the tile teachers that slide encoders bring along.
SPECS = CONFIG.model_specs()
MODELS = CONFIG.applied()
EXTERNAL = CONFIG.section(ExternalConfig)
# Elsewhere a covariate may have one value; what the models read is checked when this is parsed.
CHECKED = CONFIG.cohort.model_copy(update={"covariates": {}} if EXTERNAL else {})
# Models that see slides, and those that read what these say.
STACKED = "|".join(re.escape(m) for m in SPECS if SPECS[m].kind in STACKS) or "none"
SEEING = "|".join(re.escape(m) for m in SPECS if SPECS[m].kind not in STACKS) or "none"
# Those that are trained together, and those that have a job each.
LINEAR = [] if EXTERNAL else list(CONFIG.linear_models())
ALONE = [re.escape(m) for m in SPECS if SPECS[m].kind not in STACKS and m not in LINEAR]
ALONE = "|".join(ALONE) or "none"
# What a training on captioned tiles leaves.
PAIRED = (
    [f"results/{CONFIG.cohort.name}/teachers/{CONFIG.pairs.name}/facts.json"]
    if CONFIG.pairs is not None
    else []
)
# Teachers that are asked in words, and the tasks that they are asked of.
SPEAKING, ASKED = speaking.speaking(CONFIG), speaking.asked(CONFIG)
# Encoders that the workflow makes, and the config in which they are teachers like the others.
MADE = {one.name: one for one in CONFIG.made()}
# An external cohort takes those of the training cohort's run.
OWN = {} if EXTERNAL else MADE
MAKERS = EXTERNAL.trained if EXTERNAL else "<results>"
PRETRAINED = [name for name, one in OWN.items() if one.stage == "pretraining"]
DISTILLED = [name for name in OWN if name not in PRETRAINED]
WHOLE = CONFIG.with_made()
# Whether anything looks at tiles; imported features bring their own.
ON_TILES = bool(ENCODERS or MADE)
ROBUST = CONFIG.robust()
PROBED = [*TEACHERS, *(name for name, one in MADE.items() if not one.task)]


def group_of(teacher):
    """The name that a teacher's manifests lie under."""
    return next((g for g in ENCODERS if teacher in g.split("+")), teacher)


def job(make, *names):
    """The `cfg` param: a function, since Snakemake reads braces in a plain string as wildcards."""
    return lambda wildcards: make(
        CONFIG, *(getattr(wildcards, n) for n in names)
    ).canonical()


def told(stage, **parts):
    """The `cfg` param of a stage that declares its job: what its fields are but for sections of the
    config; what depends on wildcards is a function of them."""
    return lambda wildcards: stage_params.of(
        stage,
        CONFIG,
        **{n: part(wildcards) if callable(part) else part for n, part in parts.items()},
    ).canonical()


def version(versions):
    """The `version` param: a function for the same reason."""
    return lambda wildcards: stage_versions.text(versions)


def check_version(wildcards):
    teacher = wildcards.teacher
    settings = inputs.every_teacher(WHOLE)[teacher]
    return stage_versions.text(stage_versions.check(teacher, settings))


def extraction_version(wildcards):
    teachers = wildcards.teacher.split("+")
    versions = stage_versions.extraction(inputs.tile_teachers(WHOLE), teachers)
    return made_from(versions, f"features/{wildcards.teacher}", wildcards)


def slide_encoders_version(wildcards):
    teacher = wildcards.teacher
    versions = stage_versions.slide_encoders(teacher, TEACHERS[teacher])
    return made_from(versions, f"features/{teacher}", wildcards)


def features_of_input(wildcards):
    """The manifest of the tile teacher that a slide encoder reads."""
    group = group_of(inputs.input_of(CONFIG, wildcards.teacher))
    return f"<results>/features/{group}/manifest/{wildcards.chunk}.json"


def tiling_version(wildcards):
    scale = getattr(wildcards, "scale", "")
    folder = f"tiles_{scale}" if scale else "tiles"
    return made_from(stage_versions.stage("tiling"), folder, wildcards)


def training_version(wildcards):
    task = CONFIG.tasks[wildcards.task]
    auxiliary = [CONFIG.tasks[name] for name in task.auxiliary]
    model = SPECS[wildcards.model]
    return stage_versions.text(
        stage_versions.training(CONFIG.training, model, task, auxiliary)
    )


def linear_version(wildcards):
    task = CONFIG.tasks[wildcards.task]
    auxiliary = [CONFIG.tasks[name] for name in task.auxiliary]
    model = SPECS[LINEAR[0]]
    return stage_versions.text(
        stage_versions.training(CONFIG.training, model, task, auxiliary)
    )


def out_of_fold_version(wildcards):
    task = CONFIG.tasks[wildcards.task]
    auxiliary = [CONFIG.tasks[name] for name in task.auxiliary]
    return stage_versions.text(
        stage_versions.out_of_fold(
            CONFIG.training, SPECS[wildcards.model], task, auxiliary
        )
    )


def stacking_version(wildcards):
    return stage_versions.text(stage_versions.stacking(CONFIG.tasks[wildcards.task]))


def stacked(table):
    """A table of each model that an ensemble is made of."""
    return lambda wildcards: [
        f"<results>/models/{wildcards.task}/{name}/{table}.parquet"
        for name in getattr(SPECS[wildcards.model], "of", ())
    ]


def evaluation_version(wildcards):
    return stage_versions.text(stage_versions.evaluation(CONFIG.tasks[wildcards.task]))


def external_version(wildcards):
    return stage_versions.text(stage_versions.external(CONFIG.tasks[wildcards.task]))


def chunk_job(wildcards):
    chunk = int(wildcards.chunk)
    cases = COHORT.cases_until(chunk) if CONFIG.cohort.source == "synthetic" else 12
    return stage_params.chunk(CONFIG, COHORT.table(chunk), cases).canonical()


def folds_job(wildcards):
    return stage_params.folds(CONFIG, wildcards.task, COHORT.folds()).canonical()


def tiling_job(wildcards):
    scale = getattr(wildcards, "scale", "")
    return stage_params.tiling(
        CONFIG, COHORT.digest(int(wildcards.chunk)), scale
    ).canonical()


def all_tiles_of(wildcards):
    """The same of all chunks."""
    folder = tile_scales.folder(tile_scales.scale_of(WHOLE, wildcards.teacher))
    return collect(
        "<results>/{folder}/manifest/{chunk}.json", folder=folder, chunk=CHUNKS
    )


def tiles_of(wildcards):
    """The manifest of the tiles that a teacher, or a group of them, sees."""
    teacher = wildcards.teacher.split("+")[0]
    folder = tile_scales.folder(tile_scales.scale_of(WHOLE, teacher))
    return f"<results>/{folder}/manifest/{wildcards.chunk}.json"


def environment(wildcards):
    """A teacher whose packages do not fit the others' has its own environment."""
    own = tile_scales.environment(WHOLE, wildcards.teacher.split("+")[0])
    return f"../../envs/{own or 'shazam'}.yaml"


def extraction_job(wildcards):
    digest = COHORT.digest(int(wildcards.chunk))
    if wildcards.teacher in IMPORTED:
        digest = COHORT.imported(wildcards.teacher, int(wildcards.chunk))
    return stage_params.extraction(WHOLE, wildcards.teacher, digest).canonical()


def check_job(wildcards):
    return stage_params.check(WHOLE, wildcards.teacher).canonical()


def encoder_of(wildcards):
    """What says that a made encoder is there; nothing of other teachers."""
    made = wildcards.teacher in MADE
    return f"{MAKERS}/teachers/{wildcards.teacher}/facts.json" if made else []


def pretraining_job(wildcards):
    return encoder_jobs.pretraining(CONFIG, wildcards.encoder).canonical()


def pretraining_version(wildcards):
    teacher = CONFIG.pretraining.teachers[MADE[wildcards.encoder].student]
    return stage_versions.text(stage_versions.pretraining(teacher))


def encoder_distillation_job(wildcards):
    return encoder_jobs.told(CONFIG, wildcards.encoder).canonical()


def features_in(groups):
    """The manifests of some folders of features."""
    return collect(
        "<results>/features/{group}/manifest/{chunk}.json", group=groups, chunk=CHUNKS
    )


def taught_by(wildcards):
    """What a student's teachers have seen; its control asks nobody."""
    one = MADE[wildcards.encoder]
    teachers = [] if one.control else encoder_jobs.taught_by(CONFIG, one.student)
    found = features_in(dict.fromkeys(map(group_of, teachers)))
    view = None if one.control else encoder_jobs.slide_view(CONFIG, one.student)
    checked = [] if one.control else encoder_jobs.live(CONFIG, one.student)
    checked += [view.name] if view is not None and view.settings is not None else []
    return found + [f"<results>/features/{name}/check.json" for name in checked]


def fold_of_student(wildcards):
    task = MADE[wildcards.encoder].task
    return f"<results>/folds/{task}/folds.json" if task else []


def features_of_made(model, task):
    """What the encoders that a model reads have seen, if it reads made ones."""
    teacher = getattr(SPECS[model], "teacher", "")
    return features_in(
        name
        for name, one in MADE.items()
        if one.teacher == teacher and one.task in ("", task)
    )


def tiling_minutes(wildcards, attempt):
    return time_limits.tiling_minutes(
        len(COHORT.members[int(wildcards.chunk)]), attempt
    )


def extraction_minutes(wildcards, input, attempt):
    teachers = wildcards.teacher.split("+")
    return time_limits.extraction_minutes(WHOLE, teachers, Path(input.tiles), attempt)


def probing_job(wildcards):
    annotations = cohort_plan.annotation_digest(CONFIG, COHORT, Path.cwd())
    return stage_params.probing(WHOLE, wildcards.probed, annotations).canonical()


def robustness_job(wildcards):
    annotations = cohort_plan.annotation_digest(CONFIG, COHORT, Path.cwd())
    return stage_params.robustness(WHOLE, wildcards.teacher, annotations).canonical()


def robustness_version(wildcards):
    settings = inputs.every_teacher(WHOLE)[wildcards.teacher]
    return stage_versions.text(stage_versions.robustness(wildcards.teacher, settings))


def tile_students_job(wildcards):
    annotations = cohort_plan.annotation_digest(CONFIG, COHORT, Path.cwd())
    return stage_params.tile_students(CONFIG, annotations).canonical()


def pairs_job(wildcards):
    captions = cohort_plan.pairs_digest(CONFIG, Path.cwd())
    slides = [COHORT.digest(int(chunk)) for chunk in CHUNKS]
    return stage_params.pairs(CONFIG, captions, digests.digest(slides)).canonical()


def vision_language_job(wildcards):
    captions = cohort_plan.captions_digest(CONFIG, Path.cwd())
    return stage_params.vision_language(CONFIG, wildcards.spoken, captions).canonical()


def at_once(resource, otherwise):
    """How much of a resource `--resources` or the profile grants to all jobs together."""
    granted = getattr(workflow.global_resources.get(resource), "value", None)
    return granted if isinstance(granted, int) else otherwise


def manifests():
    """All that speak of slides' files which the workflow itself makes."""
    folders = ["tiles", *(f"tiles_{scale}" for scale in SCALES)] if ON_TILES else []
    folders += [f"features/{g}" for g in [*ENCODERS, *SLIDE_ENCODERS, *MADE]]
    return [RESULTS / f / "manifest" / f"{c}.json" for f in folders for c in CHUNKS]


def find_lost():
    """Manifests of chunks of which files are gone or damaged."""
    lost = lost_files.lost_files(RESULTS, manifests(), RECALL)
    for line in lost_files.told(lost, RESULTS):
        print(line, file=sys.stderr)
    return set(lost)


def note_files():
    """What this run made is known to the next one."""
    lost_files.lost_files(RESULTS, manifests(), RECALL)


def made_from(versions, folder, wildcards):
    """The `version` param of a chunk; a dry-run sees another one where files of it are lost."""
    lost = RESULTS / folder / "manifest" / f"{wildcards.chunk}.json" in LOST
    return stage_versions.text(versions | ({"lost files": True} if lost else {}))


def own_gpus():
    """Whether the profile gives extraction a GPU, or this machine shows one."""
    own = workflow.resource_settings.overwrite_resources.get("extraction", {})
    return "gpu" in own or bool(gpu_locks.visible_devices(os.environ))


def say_plan():
    """A dry-run ends with what the rest of the run would cost; with nothing where none is left."""
    for line in labels.told(COHORT.rows, CONFIG.tasks):
        print(line, file=sys.stderr)
    columns = {} if EXTERNAL is not None else CONFIG.cohort.covariates
    for line in covariates.told(COHORT.rows, columns):
        print(line, file=sys.stderr)
    slides = {row.slide_id: row.case_id for row in COHORT.rows}
    for line in teacher_lines.told(CONFIG, slides):
        print(line, file=sys.stderr)
    left = estimate.todo(WATCH.planned)
    if not left:
        return
    gpu, jobs = own_gpus(), at_once("_nodes", 0)
    cores = at_once("_cores", 1)
    networks = at_once("gpu", 1) if gpu else max(1, (jobs or cores // 2))
    concurrency = estimate.Concurrency(gpus=networks, jobs=jobs or max(1, cores // 2))
    assumed = rates.assumed(gpu, cluster=jobs > 0, cores=min(2, cores))
    try:
        pace = rates.pace(CONFIG, rates.earlier(RESULTS), assumed)
        found = estimate.estimate(CONFIG, COHORT, pace, concurrency, RESULTS, left)
        print(estimate.text(found), file=sys.stderr)
        print(estimate.room(found, Path("results")), file=sys.stderr)
    except UserError as error:
        print(f"No estimate: {error}", file=sys.stderr)


def take_over():
    """One Snakemake per results folder; a killed one's lock goes, and so do tables of unknown
    origin."""
    try:
        run_lock.claim(RESULTS, STATE)
        gone = run_lock.forget_unknown(RESULTS, STATE)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    except OSError as error:
        raise WorkflowError(machine_errors.remedy(error) or str(error)) from None
    if gone:
        print(f"{UNKNOWN}: their tables are made again.", file=sys.stderr)


def say_unknown():
    if run_lock.unknown_tables(RESULTS, STATE):
        print(f"{UNKNOWN}: a real run makes their tables again.", file=sys.stderr)


def say_start():
    print(
        f"{RESULTS.name}: each job writes to its log at least every 30 s how far it is, under"
        f" {RESULTS}/logs/<rule>/; what runs is shown here every minute.",
        file=sys.stderr,
    )
    run_watch.tell(WATCH)


def say_end():
    if said := run_summary.finished(RESULTS):
        print(said, file=sys.stderr)


def say_failed():
    jobs = [failed.line for failed in WATCH.failed.values()]
    print(run_summary.failed(RESULTS, jobs), file=sys.stderr)


def say_idle():
    """Snakemake calls no hook where nothing is to be done."""
    if WATCH.idle:
        say_end()


RESULTS = Path("results") / CONFIG.cohort.name
LOST = set()
STATE = Path(".snakemake")
UNKNOWN = f"{STATE} has no record of {RESULTS}. What is finished there is known by its own fingerprints"
# Commands that run no job: they only ask, and may do so while another Snakemake works.
ASKING = set("""
    --archive --cleanup-metadata --conda-cleanup-envs --container-cleanup-images
    --containerize --d3dag --dag --delete-all-output --delete-temp-output --detailed-summary
    -D --export-cwl --filegraph --generate-unit-tests --lint -l --list-changes
    --list-conda-envs --list-rules --list-target-rules --list-untracked --print-compilation
    --report --rulegraph --summary -S --unlock --conda-create-envs-only
    """.split())
DRY = {"-n", "--dry-run", "--dryrun"}
GIVEN = {argument.partition("=")[0] for argument in sys.argv[1:]}
CALLED = Path(sys.argv[0]).stem in ("snakemake", "__main__")
if MAIN:
    atexit.register(RECALL.save)
    WATCH = run_watch.attach(logger)
if MAIN and DRY & GIVEN:
    atexit.register(say_plan)
    say_unknown()
    LOST = find_lost()
elif MAIN and CALLED and not ASKING & GIVEN:
    atexit.register(say_idle)
    take_over()
    for manifest in find_lost():
        manifest.unlink(missing_ok=True)
    atexit.register(note_files)
