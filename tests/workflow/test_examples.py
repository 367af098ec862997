"""Every example config and profile can be planned."""

from __future__ import annotations

import copy
import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import yaml
from house import REPOSITORY, TINY, House

EXAMPLES = sorted((REPOSITORY / "config" / "examples").glob("*.yaml"))
# As the profile of a cluster has it, whose first machine shows no GPU.
HAS_GPUS = ("--set-resources", "extraction:gpu=1")
PROFILES = sorted(p.parent.name for p in (REPOSITORY / "profiles").glob("*/profile.yaml"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House.build(tmp_path_factory.mktemp("bare") / "run", TINY)
    shutil.copytree(REPOSITORY / "config" / "examples", house.path / "config" / "examples")
    return house


def test_a_foundation_model_cohort_is_planned_with_its_cost(bare: House) -> None:
    done = bare.run("-n", "--configfile", "config/examples/tcga-brca.yaml", *HAS_GPUS)
    assert "report" in done.stdout + done.stderr
    for teacher in ("uni2_h", "virchow2", "gigapath"):
        assert teacher in done.stderr
    assert "GPU-hours" in done.stderr
    # The embedded cohort's config is replaced, not merged.
    assert "resnet10t" not in done.stdout + done.stderr


def test_the_dry_runs_closing_lines_reckon_with_what_is_granted(tmp_path: Path) -> None:
    config = copy.deepcopy(TINY)
    config["extraction"]["teachers"] = {"phikon_v2": {}}
    config["tiling"] = {}
    house = House.build(tmp_path / "run", config)
    command = ("-n", "-q", "all", "--cores", "6")
    said = house.run(*command, *HAS_GPUS, "--resources", "gpu=3").stderr
    assert "with 3 GPU job(s) and 3 others at once" in said
    said = house.run(*command, environment={"CUDA_VISIBLE_DEVICES": ""}).stderr
    assert "with 3 extraction job(s) and 3 others at once" in said
    assert "no GPU was found" in said


def test_a_teacher_with_tiles_of_its_own(tmp_path: Path) -> None:
    """It shares a group no longer, and its tiles are laid beside the others'."""
    config = copy.deepcopy(TINY)
    config["extraction"]["teachers"]["vit_tiny"]["target_mpp"] = 2.0
    config["extraction"]["together"] = [["resnet10t", "vit_tiny"]]
    planned = set(House.build(tmp_path / "run", config).planned())
    assert {"tiling[chunk=0]", "tiling_scale[chunk=0,scale=224px_2mpp]"} <= planned
    assert {f"extraction[chunk=1,teacher={t}]" for t in ("resnet10t", "vit_tiny")} <= planned


def test_an_encoder_of_ones_own_needs_no_other_teacher(tmp_path: Path) -> None:
    """Its tiles are laid and its features extracted, though the config names no teacher."""
    config = copy.deepcopy(TINY)
    config["extraction"]["teachers"], config["tasks"] = {}, {}
    config["training"]["models"], config["evaluation"] = {}, {"attribution": False}
    config["pretraining"] = {"teachers": {"own": {"encoder": {"source": "timm", "weights": "random",
                             "model": "resnet10t", "input_px": 64}}}}  # fmt: skip
    planned = set(House.build(tmp_path / "run", config).planned())
    made = ("own_transductive", "own_untrained")
    assert {f"pretraining[encoder={name}]" for name in made} <= planned
    assert {f"extraction[chunk=1,teacher={name}]" for name in made} <= planned
    assert {"tiling[chunk=0]", "tiling_overview", "probing_gains"} <= planned


def test_students_of_tiles_are_one_job_more(tmp_path: Path) -> None:
    config = copy.deepcopy(TINY)
    config["probing"]["students"] = ["shazam_v1"]
    planned = set(House.build(tmp_path / "run", config).planned())
    assert {"tile_students", "probing[probed=vit_tiny]"} <= planned


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_accepted(bare: House, profile: str) -> None:
    executor = yaml.safe_load((bare.path / "profiles" / profile / "profile.yaml").read_text())
    plugin = f"snakemake_executor_plugin_{executor['executor']}"
    if executor["executor"] != "local" and importlib.util.find_spec(plugin) is None:
        pytest.skip(f"{plugin} is not installed")
    done = bare.run("-n", "--workflow-profile", f"profiles/{profile}")
    assert "extraction" in done.stdout + done.stderr


@pytest.mark.parametrize("profile", PROFILES)
def test_gpu_stages_ask_for_one_gpu_and_no_other_stage_for_any(profile: str) -> None:
    path = REPOSITORY / "profiles" / profile / "profile.yaml"
    resources = yaml.safe_load(path.read_text()).get("set-resources", {})
    asked = {rule: facts["gpu"] for rule, facts in resources.items() if "gpu" in facts}
    assert asked in ({}, dict.fromkeys(_rules_that_take_a_gpu(), 1))


def _rules_that_take_a_gpu() -> list[str]:
    rules = []
    for path in (REPOSITORY / "workflow" / "rules").glob("*.smk"):
        for rule in re.split(r"^ *rule ", path.read_text(), flags=re.M)[1:]:
            if "--gpus {resources.gpu}" in rule:
                rules.append(rule.partition(":")[0])
    assert {"extraction", "training"} <= set(rules)
    return rules


def test_every_profile_is_explained() -> None:
    text = (REPOSITORY / "profiles" / "README.md").read_text()
    for profile in PROFILES:
        assert f"| `{profile}` |" in text
    lines = (REPOSITORY / "profiles" / "slurm" / "profile.yaml").read_text()
    for key in yaml.safe_load(lines):
        assert key in text or key in ("executor", "set-resources"), f"{key} is not explained"


def test_no_profile_is_called_default() -> None:
    """Snakemake would merge it into every other one, key by key."""
    assert "default" not in PROFILES


def test_profile_is_found_by_name_once_it_is_linked(bare: House, tmp_path: Path) -> None:
    """`make profiles` links them; `--profile slurm` then works literally."""
    home = tmp_path / "config"
    (home / "snakemake").mkdir(parents=True)
    (home / "snakemake" / "slurm").symlink_to(bare.path / "profiles" / "slurm")
    done = bare.run("-n", "--profile", "slurm", environment={"XDG_CONFIG_HOME": str(home)})
    assert "extraction" in done.stdout + done.stderr
