"""Standardisation, losses, measures of agreement, and the student's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.encoder_distillation import EncoderDistillationConfig as Section
from pipeline.config.encoder_distillation import EncoderStudent, LossesConfig, made
from pipeline.config.extraction import TeacherConfig
from pipeline.config.whole import Config
from pipeline.distillation.agreement import cka, explained_variance, neighbour_overlap
from pipeline.encoder_distillation.learner import losses
from pipeline.encoder_distillation.standardise import fit_standard, hadamard
from pipeline.encoder_distillation.student import Student, start, start_heads
from pipeline.encoders.taps import find_taps
from pipeline.errors import ConfigError, UserError
from pipeline.plan.encoder_jobs import check_folds

TINY = TeacherConfig(
    source="timm", model="vit_tiny_patch16_224", weights="random", seed=1, input_px=32
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _features(n: int = 400, d: int = 24, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.geomspace(0.01, 30, d)) @ rng.normal(size=(d, d)) + 5


@pytest.mark.parametrize("n", [1, 2, 4, 12, 20, 24, 192, 320, 384, 60])
def test_hadamard_matrices_are_orthogonal_with_entries_of_one_size(n: int) -> None:
    matrix = hadamard(n)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-9)
    np.testing.assert_allclose(np.abs(matrix), n**-0.5)


def test_phi_s_gives_every_dimension_unit_variance_and_keeps_distances_up_to_one_scale() -> None:
    features = _features()
    parts = np.array_split(features, 5)
    standard = fit_standard("t", parts, "phi_s")
    out = standard(torch.from_numpy(features)).numpy().astype(np.float64)
    np.testing.assert_allclose(out.mean(0), 0, atol=2e-3)
    np.testing.assert_allclose(out.var(0), 1, rtol=2e-2)
    assert features.var(0).max() / features.var(0).min() > 2  # else the test could not fail
    back = standard.back(torch.from_numpy(out.astype(np.float32))).numpy()
    np.testing.assert_allclose(back, features, atol=1e-2 * np.abs(features).max())
    before = np.linalg.norm(features[:50, None] - features[None, 50:90], axis=-1)
    after = np.linalg.norm(out[:50, None] - out[None, 50:90], axis=-1)
    ratio = before / after
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)
    assert ratio.mean() == pytest.approx(standard.scale, rel=1e-3)


def test_a_scalar_leaves_the_axes_and_averages_to_unit_variance() -> None:
    features = _features()
    out = fit_standard("t", [features], "scalar")(torch.from_numpy(features)).numpy()
    assert out.var(0).mean() == pytest.approx(1, rel=1e-3)
    assert out.var(0).max() > 1.2


def test_what_cannot_be_standardised_is_refused() -> None:
    with pytest.raises(UserError, match="says the same of all 9 tiles"):
        fit_standard("t", [np.ones((9, 4))], "phi_s")
    with pytest.raises(UserError, match=r"no Hadamard matrix of 7.*standardise: scalar"):
        fit_standard("t", [_features(50, 7)], "phi_s")


def test_a_student_equal_to_its_teacher_has_loss_zero_and_explains_everything() -> None:
    target = torch.from_numpy(_features(30, 8)).float()
    for loss, _ in losses(LossesConfig(cosine=1, smooth_l1=1, mse=1)):
        assert float(loss(target, target)) == pytest.approx(0, abs=1e-6)
        assert float(loss(target.flip(0), target)) > 0.01
    assert explained_variance(target.numpy(), target.numpy()) == 1
    mean = np.broadcast_to(target.numpy().mean(0), target.shape)
    assert explained_variance(mean, target.numpy()) == pytest.approx(0, abs=1e-6)


def test_agreement_does_not_see_turns_and_scales_but_sees_other_views() -> None:
    view = _features(200, 12)
    turned = 3 * view @ np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    other = np.random.default_rng(2).normal(size=(200, 12))
    assert cka(view, turned) == pytest.approx(1)
    assert cka(view, other) < 0.3
    assert neighbour_overlap(view, 3 * view) == 1
    assert neighbour_overlap(view, other) < 0.2


def test_depth_width_and_tokens_change_a_transformer_and_keep_what_fits() -> None:
    whole, _ = start("s", EncoderStudent(encoder=TINY), None)
    path = EncoderStudent(encoder=TINY, depth=3, tokens="per_teacher", teachers=("a", "b"))
    cut, plan = start("s", path, None)
    assert len(cut.blocks) == 3 and cut.num_reg_tokens == 2  # type: ignore[arg-type]
    assert plan.pooling == "registers" and plan.kwargs["reg_tokens"] == 2
    control, plan = start("s", path, None, control=True)
    assert control.num_reg_tokens == 0 and plan.pooling is None
    wide, _ = start("s", EncoderStudent(encoder=TINY, width=128), None)
    assert wide.embed_dim == 128 and whole.embed_dim == 192
    with pytest.raises(ConfigError, match=r"students\.s\.depth: the encoder has 12 blocks"):
        start("s", EncoderStudent(encoder=TINY, depth=13), None)
    convolutional = TeacherConfig(source="timm", model="resnet10t", weights="random")
    with pytest.raises(ConfigError, match="only a vision transformer"):
        start("s", EncoderStudent(encoder=convolutional, depth=2), None)


def _student(**more: object) -> Student:
    cfg = EncoderStudent(encoder=TINY, depth=2, **more)  # type: ignore[arg-type]
    module, plan = start("s", cfg, None)
    taps = find_taps(module, plan.pooling)
    tokens = cfg.tokens == "per_teacher"
    return Student(module, taps, {"a": 6, "b": 4}, tokens, cfg.nested, 16, 32).eval()


def test_each_teacher_has_its_token_and_the_embedding_is_their_mean() -> None:
    student = _student(tokens="per_teacher", teachers=("a", "b"))
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        embedding, read = student.embed(images)
        _, answers = student(images)
    torch.testing.assert_close(embedding, (read[0] + read[1]) / 2)
    assert not torch.allclose(read[0], read[1])
    assert [a[0].shape[1] for a in answers.values()] == [6, 4]


def test_a_smaller_size_reads_the_first_numbers_alone() -> None:
    student = _student(nested=(16, 64))
    assert student.sizes == (16, 64, 192)
    small: torch.nn.Module = student.heads[0][0]  # type: ignore[index, assignment]
    assert small.linear.in_features == 16  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="nested: 192 is not smaller"):
        _student(nested=(192,))


def test_heads_start_where_a_regression_puts_them() -> None:
    student = _student(nested=(8,))
    views = torch.randn(500, 192)
    targets = {"a": views[:, :8] @ torch.randn(8, 6) + 1, "b": views @ torch.randn(192, 4)}
    start_heads(student, [views, views], targets)
    for teacher, heads in zip(("a", "b"), student.heads, strict=True):
        whole = heads[1](views).detach().numpy()  # type: ignore[index]
        assert explained_variance(whole, targets[teacher].numpy()) > 0.9
    small = student.heads[0][0](views[:, :8]).detach().numpy()  # type: ignore[index]
    assert explained_variance(small, targets["a"].numpy()) > 0.9


def test_names_say_which_encoders_have_seen_the_test_slides() -> None:
    students = {
        "x": EncoderStudent(pool="all"),
        "y": EncoderStudent(pool="training", control=False),
        "z": EncoderStudent(pool="separate", control=False),
    }
    found = made(Section(students=students), {"os": None, "grade": None}, 2)
    assert [one.name for one in found] == [
        *("x_transductive", "x_undistilled"),
        *("y.os.0", "y.os.1", "y.grade.0", "y.grade.1"),
        "z",
    ]
    assert {one.teacher for one in found if one.student == "y"} == {"y"}


@pytest.mark.parametrize("keep", [True, False])
def test_batch_norms_keep_the_statistics_that_they_start_with(keep: bool) -> None:
    tiny = TeacherConfig(source="timm", model="resnet10t", weights="random", input_px=32)
    module, _ = start("s", EncoderStudent(encoder=tiny), None)
    taps = find_taps(module)
    whole = Student(module.eval(), taps, {"a": 6}, False, (), 16, 32, keep_norms=keep)
    before = {name: value.clone() for name, value in whole.encoder.named_buffers()}
    one, two = torch.rand(2, 4, 3, 32, 32)
    whole.train()
    alone, beside = whole(one)[0], whole(torch.cat([one, 3 * two]))[0][:4]
    after = dict(whole.encoder.named_buffers())
    assert all(torch.equal(before[name], value) for name, value in after.items()) == keep
    assert torch.allclose(alone, beside, atol=1e-5) == keep  # nothing of the batch's other tiles
    assert whole.training and whole.heads.training


def test_students_of_imported_folds_need_their_number(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"splits_{number}.csv").write_text(",train,val,test\n")
    tiny = {"source": "timm", "model": "resnet10t", "weights": "random"}
    data: dict[str, Any] = {
        "extraction": {"teachers": {"t": tiny}},
        "tasks": {"grade": {"type": "classification", "label": "grade"}},
        "folds": {"import_dir": tmp_path.name},
        "encoder_distillation": {"students": {"s": {"encoder": tiny, "control": False}}},
    }
    with pytest.raises(ConfigError, match=r"has 3 of them: set folds\.k: 3"):
        check_folds(Config.model_validate(data), tmp_path.parent)
    data["folds"] = {"import_dir": tmp_path.name, "k": 3}
    config = Config.model_validate(data)
    check_folds(config, tmp_path.parent)
    assert [one.name for one in config.made()] == ["s.grade.0", "s.grade.1", "s.grade.2"]
