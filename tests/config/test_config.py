"""The config: typed, unknown keys refused, messages that name the key and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from pipeline.config.models import ModelConfig, aggregators
from pipeline.config.reading import load, parse, refuse_double_keys
from pipeline.config.whole import Config
from pipeline.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT = REPOSITORY / "config" / "config.yaml"
READ = TypeAdapter(ModelConfig)


def demo(**changes: object) -> dict:
    data = yaml.safe_load(DEFAULT.read_text())
    for dotted, value in changes.items():
        node = data
        *path, last = dotted.split("__")
        for part in path:
            node = node[part]
        node[last] = value
    return data


def test_default_config_is_valid_and_expands_one_model_per_teacher() -> None:
    config = load(DEFAULT)
    names = list(config.model_specs())
    each = [n.removeprefix("linear_") for n in names if n.startswith("linear_")]
    assert each == [
        *config.extraction.teachers,
        "clusiam_transductive",
        "clusiam_untrained",
        "small_transductive",
        "small_undistilled",
        "all",
    ]
    assert config.evaluation.student in names


@pytest.mark.parametrize("example", sorted((REPOSITORY / "config" / "examples").glob("*.yaml")))
def test_examples_are_valid(example: Path) -> None:
    config = load(example)
    assert config.tasks
    assert config.cohort.name != "demo"  # else it would write over the embedded cohort's results


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tilling": {}}, ("tilling", "did you mean `tiling`")),
        ({"tiling__tile_pxx": 1}, ("tiling.tile_pxx", "did you mean `tile_px`")),
        ({"training__models__shazam_v2__gat": "off"}, ("gat", "did you mean `gate`")),
        ({"tasks__survival__tme": "x"}, ("tasks.survival", "did you mean `time`")),
        ({"extraction__teachers__efficientnet_lite0__sead": 1}, ("sead", "did you mean `seed`")),
    ],
)
def test_unknown_keys_name_the_place_and_the_nearest(changes: dict, expected: tuple) -> None:
    with pytest.raises(ConfigError) as error:
        parse(demo(**changes), "my.yaml")
    assert "my.yaml" in str(error.value)
    for text in expected:
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"evaluation__student": "shazam_v3"}, "did you mean `shazam_v"),
        ({"tiling__overlap_px": 224}, "overlap_px must be smaller than tile_px"),
        ({"tiling__mpp_policy": "default"}, "needs `default_mpp:`"),
        ({"cohort__source": "sheet"}, "needs `sheet:`"),
        ({"extraction__teachers__efficientnet_lite0": {"source": "import"}}, "needs `path:`"),
        ({"extraction__teachers": ["uni2_h", "uni2_h"]}, "is twice in the list"),
        ({"training__learning_rate": "fast"}, "training.learning_rate"),
        (
            {"training__models__linear__teacher": "efficientnet_lite"},
            "did you mean `efficientnet_lite",
        ),
        ({"cohort__name": "../elsewhere"}, "cohort.name"),
    ],
)
def test_impossible_values_are_refused(changes: dict, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected.replace("`", "`").replace(".", r"\.")):
        parse(demo(**changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "needs `folds.inner`"),
        ({"grid": {"learning_rat": [1]}}, "did you mean `learning_rate`"),
        ({"grid": {"dropout": []}}, "leaves nothing to try"),
        (
            {"grid": {"dropout": [0.1, 2.0]}},
            "{'dropout': 2.0} does not fit `single_efficientnet_lite0`",
        ),
    ],
)
def test_a_nested_grid_is_checked_before_any_work(changes: dict, expected: str) -> None:
    inner = {"folds__inner": 3} if changes else {}
    with pytest.raises(ConfigError) as error:
        parse(demo(training__nested=changes, **inner))
    assert expected in str(error.value)


def test_a_point_of_the_grid_sets_training_and_model() -> None:
    grid = {"learning_rate": [0.5, 0.1], "distillation.weight": [0.3]}
    config = parse(demo(training__nested={"grid": grid}, folds__inner=3))
    assert config.training.nested is not None
    point = config.training.nested.points()[1]
    settings, student = config.training.at(point, config.model_specs()["shazam_v2"])
    assert (settings.learning_rate, student.distillation.weight) == (0.1, 0.3)
    _, single = config.training.at(point, config.model_specs()["single_efficientnet_lite0"])
    assert single == config.model_specs()["single_efficientnet_lite0"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            {"kind": "single", "aggregator": "clam_sb", "faithful": True},
            "odd.faithful: not a key of `kind: single`, `aggregator: clam_sb`; its keys: "
            "covariates, kind, aggregator, levels, teacher, d_model, dropout, k",
        ),
        ({"kind": "single", "aggregator": "transformer", "faithful": True}, "not a key of"),
        ({"kind": "single", "aggregator": "mean_pool", "d_model": 64}, "odd.d_model: not a key"),
        ({"kind": "mean", "aggregator": "mean_pool", "sized_as": "shazam_v2"}, "not a key"),
        (
            {"kind": "single", "aggregator": "dsmil", "faithful": True, "d_model": 64},
            "not a key of `kind: single`, `aggregator: dsmil`, `faithful: true`; its keys: "
            "covariates, kind, aggregator, levels, teacher, faithful",
        ),
        ({"kind": "single", "dropot": 0.1}, "did you mean `dropout`; its keys:"),
        (
            {"kind": "shazam_v2", "faithful": True, "d_model": 64},
            "d_model: with faithful: true it is 128, and 64 would not be used",
        ),
        ({"kind": "singel"}, "odd.kind: no kind `singel`; did you mean `single`; known: concat"),
        ({}, "odd: needs `kind:`, one of concat"),
        ({"kind": "mean", "aggregator": "abmill"}, "no aggregator `abmill`; did you mean `abmil`"),
        ({"kind": "shazam_v2", "gate": "after_nom"}, "did you mean `after_norm`"),
        ({"kind": "shazam_v2", "gate": False}, 'write "off" in quotes'),
        ("abmil", "odd: a mapping is wanted, this is 'abmil'"),
    ],
)
def test_a_key_that_a_model_does_not_use_is_an_error(model: object, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(demo(training__models__odd=model))
    assert expected in str(error.value)


SURVIVAL = {"type": "survival", "time": "t", "event": "e"}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (
            {**SURVIVAL, "loss": "cox", "bins": 6},
            "odd.bins: not a key of `type: survival`, `loss: cox`; did you mean `ties`; its keys: "
            "type, loss, auxiliary, time, event, unit, ties",
        ),
        ({**SURVIVAL, "ties": "efron"}, "odd.ties: not a key of `type: survival`, `loss: nll`"),
        ({**SURVIVAL, "loss": "ranking", "alpha": 0.1}, "odd.alpha: not a key of"),
        ({**SURVIVAL, "loss": "nnl"}, "odd.loss: no loss `nnl`; did you mean `nll`; known: cox"),
        ({**SURVIVAL, "loss": "squared_error"}, "odd.loss: no loss `squared_error`"),
        ({"type": "survivl"}, "odd.type: no type `survivl`; did you mean `survival`"),
        ({"time": "t"}, "odd: needs `type:`, one of classification, regression, survival"),
        ({"type": "regression", "targets": ["a"], "label_smoothing": 0.1}, "not a key of"),
        ({"type": "classification", "label": "a", "label_smoothing": 1}, "less than 1"),
    ],
)
def test_a_key_that_a_task_does_not_use_is_an_error(task: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(demo(tasks__odd=task))
    assert expected in str(error.value)


def test_a_key_that_a_distillation_loss_does_not_use_is_an_error() -> None:
    model = {"kind": "shazam_v2", "distillation": {"huber_detla": 2.0}}
    with pytest.raises(ConfigError, match=r"did you mean `huber_delta`; its keys: weight, plain"):
        parse(demo(training__models__odd=model))


def test_a_model_is_read_as_it_was_written() -> None:
    """Every form, as a job is told it."""
    forms: list[dict] = [
        {"kind": "shazam_v1"},
        {"kind": "shazam_v1", "faithful": True},
        {"kind": "shazam_v2", "faithful": True},
    ]
    for name, entry in aggregators().items():
        for kind in ("single", "concat", "mean"):
            forms.append(
                {"kind": kind, "aggregator": name, **{k.name: k.default for k in entry.keys}}
            )
            if entry.published:
                forms.append({"kind": kind, "aggregator": name, "faithful": True})
    for form in forms:
        model = READ.validate_python(form)
        again = READ.validate_json(model.model_dump_json())
        assert type(again) is type(model)
        assert again == model
        assert form.items() <= model.model_dump().items()


def test_a_number_written_as_yaml_text_is_a_number() -> None:
    # YAML 1.1 reads 1e-4 as a string; it must not reach an optimiser as one.
    assert parse(demo(training__learning_rate="1e-4")).training.learning_rate == 1e-4


def test_a_sheet_is_the_source_of_the_cohort() -> None:
    """Else a study with a sheet would get the embedded cohort, and nobody would be told."""
    assert parse({"cohort": {"sheet": "mine.csv"}}).cohort.source == "sheet"
    assert parse({"cohort": {"name": "demo"}}).cohort.source == "synthetic"
    with pytest.raises(ConfigError, match=r"cohort.*sheet: not read with source: synthetic"):
        parse({"cohort": {"source": "synthetic", "sheet": "mine.csv"}})


def test_a_list_of_teachers_is_short_for_a_mapping() -> None:
    data = demo(
        extraction__teachers=["uni2_h", "virchow2"],
        extraction__together=[],
        training__models={},
        training__ablations={},
    )
    config = parse(data)
    assert list(config.extraction.teachers) == ["uni2_h", "virchow2"]
    assert config.extraction.teachers["uni2_h"].source == "registry"


def test_canonical_text_does_not_depend_on_the_order_of_keys() -> None:
    data = demo()
    turned = {key: data[key] for key in reversed(list(data))}
    assert parse(data).canonical() == parse(turned).canonical()


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not valid YAML"):
        load(broken)


def test_schema_file_is_in_step() -> None:
    stored = (REPOSITORY / "workflow" / "schemas" / "config.schema.json").read_text()
    assert json.loads(stored) == json.loads(json.dumps(Config.model_json_schema())), (
        "run: python -m pipeline schema > workflow/schemas/config.schema.json"
    )


def test_every_key_of_the_schema_stands_in_the_default_config() -> None:
    """A reader finds each key in config.yaml, with its comment on the same line or above."""
    data = yaml.safe_load(DEFAULT.read_text())
    for section in Config.model_fields:
        assert section in data, f"config.yaml lacks the section {section}"
        model = Config.model_fields[section].annotation
        for key in getattr(model, "model_fields", {}):
            assert key in data[section], f"config.yaml lacks {section}.{key}"


def test_every_key_stands_in_the_readme() -> None:
    readme = (REPOSITORY / "config" / "README.md").read_text()
    for name, definition in Config.model_json_schema()["$defs"].items():
        for key, facts in definition.get("properties", {}).items():
            if "$ref" in facts:  # a section, whose own keys are listed
                continue
            assert f"`{key}`" in readme or f".{key}`" in readme, f"README lacks {name}.{key}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("training: {epochs: 3}\nfolds: {k: 3}\ntraining: {seeds: [0]}\n", "training"),
        ("folds:\n  k: 3\n  seed: 1\n  k: 5\n", "k"),
        ("tasks: {os: {type: regression, targets: [a]}, 'os': {}}\n", "os"),
    ],
)
def test_a_key_that_stands_twice_is_an_error(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    for read in (load, refuse_double_keys):
        with pytest.raises(ConfigError, match=rf"c.yaml: the key `{key}` is written twice.*lines"):
            read(path)


def test_merged_yaml_is_no_double_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: &a {k: 3}\nb: {<<: *a, k: 4}\nc: {k: 1}\n")
    refuse_double_keys(path)


def test_empty_teachers_and_a_student_that_is_not_there() -> None:
    data = demo(extraction__teachers={}, extraction__together=[]) | {
        "training": {},
        "evaluation": {},
        "encoder_distillation": None,
        "pretraining": None,
    }
    with pytest.raises(ConfigError, match=r"extraction\.teachers: empty"):
        parse(data)
    data = demo(evaluation__student="shazam_v3") | {"training": {}}
    with pytest.raises(ConfigError, match=r"evaluation\.student is `shazam_v3`"):
        parse(data)


@pytest.mark.parametrize(("classes", "what"), [([True, False], "yes, no"), ([0, 1], "numbers")])
def test_classes_that_yaml_reads_as_something_else(classes: list, what: str) -> None:
    data = demo()
    data["tasks"]["t"] = {"type": "classification", "label": "grade", "classes": classes}
    with pytest.raises(ConfigError, match=rf"tasks\.t\.classes: YAML reads .*{what}.*in quotes"):
        parse(data)
