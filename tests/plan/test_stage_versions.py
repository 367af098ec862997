"""Which numbers decide a job's result, and that independent things have their own."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from pipeline.aggregators.fusion import VERSIONS as KINDS
from pipeline.config.models import ModelConfig, aggregators, distillation_losses
from pipeline.config.registry import entries
from pipeline.config.tasks import LOSSES, TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.config.whole import Config
from pipeline.contracts.versions import versions_in
from pipeline.encoders import architectures, checkpoint_layouts, registry
from pipeline.plan import stage_versions

SURVIVAL = {"type": "survival", "time": "t", "event": "e", "loss": "cox"}
REGRESSION = {"type": "regression", "targets": ["x"]}


def extraction(**teachers: dict[str, object]) -> dict[str, dict[str, int]]:
    config = Config.model_validate({"extraction": {"teachers": teachers}}).extraction
    return stage_versions.extraction(config.teachers, list(teachers))


def training(model: dict[str, object], task: dict[str, object], *others: dict[str, object]) -> set:
    read = TypeAdapter(TaskConfig).validate_python
    found = stage_versions.training(
        TrainingConfig(),
        TypeAdapter(ModelConfig).validate_python(model),
        read(task),
        [read(other) for other in others],
    )
    return set(found)


def test_a_teacher_depends_on_its_own_loader_layout_and_architecture() -> None:
    found = extraction(
        conch={"acknowledge_licence": True},
        uni={"acknowledge_licence": True},
        resnet={"source": "timm", "model": "resnet10t", "weights": "random"},
    )
    assert set(found["resnet"]) == {"extraction"}
    assert set(found["uni"]) == {"extraction", "layout timm"}
    assert set(found["conch"]) == {"extraction", "layout conch", "architecture attention_pooled"}
    remote = next(name for name, row in registry.models().items() if row.loader == "remote")
    assert set(extraction(**{remote: {"acknowledge_licence": True}})[remote]) == {
        "extraction",
        "loader remote",
    }


def test_a_raised_layout_is_its_teachers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    teachers: dict[str, dict[str, object]] = {
        name: {"acknowledge_licence": True} for name in ("conch", "uni", "virchow2")
    }
    before = extraction(**teachers)
    stated = versions_in("pipeline.encoders.checkpoint_layouts")
    monkeypatch.setitem(stated, "conch", stated["conch"] + 1)
    now = extraction(**teachers)
    assert [name for name in teachers if now[name] != before[name]] == ["conch"]


def test_every_layout_and_architecture_has_a_number() -> None:
    assert set(checkpoint_layouts.VERSIONS) == set(checkpoint_layouts.LAYOUTS)
    assert set(architectures.VERSIONS) == set(architectures.TOWERS)
    for name in registry.models():
        assert extraction(**{name: {"acknowledge_licence": True}})[name]["extraction"] > 0


def test_a_model_depends_on_its_own_kind_and_a_task_on_its_own_type() -> None:
    single = training({"kind": "single"}, SURVIVAL)
    assert single == {
        "training",
        "model single",
        "aggregator abmil",
        "task survival",
        "loss cox",
    }
    student = training({"kind": "shazam_v2"}, REGRESSION)
    shared = {
        "training",
        "students",
        "distillation cosine_huber",
        "plain answers",
        "forest",
        "model linear",
    }
    shared |= {"task regression", "loss squared_error"}
    assert student == shared | {"model shazam_v2"}
    assert training({"kind": "shazam_v1"}, REGRESSION, SURVIVAL) == shared | {
        "model shazam_v1",
        "multitask",
        "task survival",
        "loss cox",
    }
    assert set(KINDS) == {"single", "mean", "concat"}


def test_every_aggregator_and_loss_states_its_version() -> None:
    for name, entry in (aggregators() | entries(LOSSES) | distillation_losses()).items():
        assert versions_in(entry.module)[""] > 0, name


def test_a_fusion_sized_as_a_student_depends_on_it() -> None:
    sized = {"kind": "concat", "sized_as": {"kind": "shazam_v1"}}
    assert {"model concat", "model shazam_v1"} <= training(sized, SURVIVAL)


@pytest.mark.parametrize("kind", ["survival", "classification", "regression"])
def test_measures_depend_on_the_type_of_the_task(kind: str) -> None:
    known = {"survival": SURVIVAL, "regression": REGRESSION}
    known["classification"] = {"type": "classification", "label": "c"}
    task = TypeAdapter(TaskConfig).validate_python(known[kind])
    assert set(stage_versions.evaluation(task)) == {"evaluation", f"{kind} metrics"}
