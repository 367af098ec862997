"""What planning costs as the cohort grows: 100 to 10,000 slides, 5 teachers, 3 tasks, 5 folds.

    python benchmarks/scale.py [--slides 100 1000 3000 10000] [--baseline 3000]

No pixels: the slides are files of a few bytes, and "finished" means empty outputs that
`snakemake --touch` has recorded. Each number is of a process of its own, as a user starts it: jobs,
seconds, processor seconds, peak memory. The baseline is the plain way, one job per slide and
teacher, planned by the same Snakemake in the same run. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
SLIDES_PER_CHUNK = 40
TEACHERS = ("uni2_h", "virchow2", "gigapath", "h_optimus_0", "phikon_v2")
ADDED_TEACHER = "h_optimus_1"
FEATURES = ("cohort_chunk", "cohort", "tiling", "extraction", "mapping")

# Snakemake's touch executor sleeps 0.1 s per job, which is minutes here and proves nothing.
TOUCH = """
import sys
from snakemake.executors import touch
touch.Executor.SLEEPING_TIME = 0
from snakemake.cli import main
main(sys.argv[1:])
"""
OUTPUTS = """
import json, logging, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.logging import logger
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness
from snakemake.settings.types import ResourceSettings

class Capture(logging.Handler):
    jobs = []
    def emit(self, record):
        if hasattr(record, "rule_name") and getattr(record, "output", None):
            self.jobs.append((record.rule_name, [str(o) for o in record.output]))

with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
    workflow = api.workflow(
        snakefile=Path(sys.argv[1]),
        workdir=Path.cwd(),
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(configfiles=[Path("config.yaml")]),
    )
    logger.addHandler(Capture())
    workflow.dag(DAGSettings()).execute_workflow(executor="dryrun")
print("\\n" + json.dumps(Capture.jobs))
"""
# As long as a real one: what is not known before a chunk is tiled is read from it.
MANIFEST = json.dumps(
    {
        "slides": [
            {
                "slide_id": f"slide-{i}",
                "stage": "tiling",
                "status": "ok",
                "facts": {f"fact {j}": j / 7 for j in range(15)} | {"n_tiles": 8000},
            }
            for i in range(SLIDES_PER_CHUNK)
        ]
    },
    indent=2,
)
PLAIN = """
SLIDES = [line.strip() for line in open("ids.txt")]
TEACHERS = {teachers}
rule all:
    input: "plain/report"
rule tiles:
    output: "plain/tiles/{{slide}}"
    shell: "touch {{output}}"
rule features:
    input: "plain/tiles/{{slide}}"
    output: "plain/features/{{teacher}}/{{slide}}"
    shell: "touch {{output}}"
rule report:
    input: expand("plain/features/{{teacher}}/{{slide}}", teacher=TEACHERS, slide=SLIDES)
    output: "plain/report"
    shell: "touch {{output}}"
"""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a process took: seconds, processor seconds, peak resident memory in MB."""

    seconds: float
    cpu: float
    memory: float


@dataclasses.dataclass(frozen=True)
class Cohort:
    """A cohort without pixels in a folder of its own."""

    folder: Path
    slides: int

    def config(self, teachers: tuple[str, ...]) -> None:
        """Write the config: three tasks, five folds."""
        data = {
            "cohort": {
                "name": "scale",
                "source": "sheet",
                "sheet": "slides.csv",
                "chunks": max(1, -(-self.slides // SLIDES_PER_CHUNK)),
            },
            "extraction": {"teachers": {name: {"acknowledge_licence": True} for name in teachers}},
            "tasks": {
                "survival": {"type": "survival", "time": "time", "event": "event"},
                "subtype": {"type": "classification", "label": "subtype"},
                "score": {"type": "regression", "targets": ["score"]},
            },
            "folds": {"k": 5},
            "training": {
                "models": {
                    "single": {"kind": "single"},
                    "concat": {"kind": "concat"},
                    "shazam_v2": {"kind": "shazam_v2"},
                }
            },
            "evaluation": {"student": "shazam_v2"},
        }
        (self.folder / "config.yaml").write_text(yaml.safe_dump(data))

    def sheet(self, slides: int) -> None:
        """Write the sheet and the slide files that are not there yet."""
        (self.folder / "slides").mkdir(exist_ok=True)
        lines = ["slide_id,case_id,path,site,time,event,subtype,score"]
        for i in range(slides):
            path = self.folder / "slides" / f"s{i}.svs"
            if not path.exists():
                path.write_text(f"slide {i}")
            lines.append(
                f"s{i},c{i},slides/s{i}.svs,h{i % 20},{i % 97 + 1},{i % 2},{'ab'[i % 2]},{i % 13}"
            )
        (self.folder / "slides.csv").write_text("\n".join(lines) + "\n")

    def command(self, *arguments: str) -> list[str]:
        snakefile = str(REPOSITORY / "workflow" / "Snakefile")
        return ["-s", snakefile, "--configfile", "config.yaml", *arguments]

    def outputs(self) -> list[tuple[str, list[str]]]:
        """Rule and output files of every job that would run now."""
        done = subprocess.run(
            [sys.executable, "-c", OUTPUTS, str(REPOSITORY / "workflow" / "Snakefile")],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
        return [(rule, files) for rule, files in json.loads(done.stdout.splitlines()[-1])]

    def finish(self) -> None:
        """Make every output, and let Snakemake record that it made them."""
        for _, files in self.outputs():
            for file in files:
                path = self.folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(MANIFEST if path.parent.name == "manifest" else file)
        # Forced: the files are newer than the sheet, so that nothing would be touched, and nothing
        # recorded for the later runs to compare with.
        touch = self.command("--touch", "--forceall", "--cores", "1", "-q", "all")
        measure([sys.executable, "-c", TOUCH, *touch], self.folder)


def measure(command: list[str], folder: Path) -> Cost:
    """Run a command and say what it took.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{command}\n{log.read().decode()[-3000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def dry_run(cohort: Cohort, repeats: int = 2) -> Cost:
    """The cheapest of some dry-runs, as a user starts them."""
    command = [sys.executable, "-m", "snakemake", *cohort.command("-n", "-q", "rules")]
    return min((measure(command, cohort.folder) for _ in range(repeats)), key=lambda c: c.cpu)


def plain(folder: Path, slides: int) -> Cost:
    """The dry-run of one job per slide and teacher."""
    (folder / "ids.txt").write_text("".join(f"s{i}\n" for i in range(slides)))
    (folder / "plain.smk").write_text(PLAIN.format(teachers=list(TEACHERS)))
    return measure(
        [sys.executable, "-m", "snakemake", "-s", "plain.smk", "-n", "-q", "rules"], folder
    )


def row(what: str, jobs: int | str, cost: Cost) -> None:
    print(
        f"  {what:<28}{jobs:>8} jobs {cost.seconds:>7.2f} s {cost.cpu:>7.2f} CPU-s "
        f"{cost.memory:>6.0f} MB",
        flush=True,
    )


def report(slides: int, baseline: bool) -> Cost:
    """Measure one size; returns the first dry-run's cost."""
    with tempfile.TemporaryDirectory() as scratch:
        cohort = Cohort(Path(scratch), slides)
        cohort.sheet(slides)
        cohort.config(TEACHERS)
        jobs = [rule for rule, _ in cohort.outputs()]
        to_features = sum(rule in FEATURES for rule in jobs)
        print(f"{slides} slides: {len(jobs)} jobs, {to_features} up to the features", flush=True)
        first = dry_run(cohort)
        row("dry-run, nothing done", len(jobs), first)
        cohort.finish()
        row("dry-run, all done", len(cohort.outputs()), dry_run(cohort))
        run = [*cohort.command("--cores", "1", "-q", "all")]
        row("run, all done", 0, measure([sys.executable, "-m", "snakemake", *run], cohort.folder))
        cohort.sheet(slides + 1)
        row("one slide more", len(cohort.outputs()), dry_run(cohort))
        cohort.sheet(slides)
        cohort.config((*TEACHERS, ADDED_TEACHER))
        row("one teacher more", len(cohort.outputs()), dry_run(cohort))
        if baseline:
            cost = plain(cohort.folder, slides)
            row("plain: slide x teacher", slides * (1 + len(TEACHERS)) + 1, cost)
            print(
                f"  the plain dry-run costs {cost.cpu / first.cpu:.1f} x the processor time and "
                f"{cost.memory / first.memory:.1f} x the memory"
            )
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, nargs="+", default=[100, 1000, 3000, 10_000])
    parser.add_argument("--baseline", type=int, nargs="*", default=[3000], help="sizes to compare")
    options = parser.parse_args()
    costs = [report(slides, slides in options.baseline) for slides in options.slides]
    for (few, cheap), (many, dear) in zip(
        zip(options.slides, costs, strict=True),
        zip(options.slides[1:], costs[1:], strict=True),
        strict=False,
    ):
        print(
            f"{few} to {many} slides ({many / few:.1f} x): dry-run {dear.cpu / cheap.cpu:.1f} x "
            f"processor time, {dear.memory / cheap.memory:.1f} x memory"
        )


if __name__ == "__main__":
    main()
