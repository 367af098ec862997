"""Signs of a collapse: each known state sets off its own alarm, and a sound one none."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.config.pretraining import AlarmsConfig
from pipeline.pretraining.alarms import alarms, cluster_signs, feature_signs

LIMITS = AlarmsConfig()


def seen(features: torch.Tensor, scores: torch.Tensor | None = None) -> set[str]:
    signs = feature_signs(features)
    if scores is not None:
        torch.manual_seed(0)
        signs |= cluster_signs(scores, features)
    return {alarm.name for alarm in alarms(signs, LIMITS)}


def test_sound_features_and_clusters_set_off_nothing() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 32)
    assert seen(features) == set()
    assert seen(features, 8 * F.one_hot(torch.arange(200) % 5, 8).float()) == set()


def test_equal_features_set_off_theirs() -> None:
    torch.manual_seed(0)
    same = torch.randn(32).expand(200, -1) + 1e-3 * torch.randn(200, 32)
    assert seen(same) == {"features", "rank"}
    line = torch.randn(200, 1) * torch.randn(32)
    assert seen(line) == {"rank"}


def test_a_dominant_logit_and_uniform_logits_are_told_apart() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 32)
    dominant = torch.randn(200, 8)
    dominant[:, 3] += 100
    assert seen(features, dominant) == {"dominant"}
    assert seen(features, 0.01 * torch.randn(200, 8)) == {"uniform"}


def test_signs_have_the_values_of_known_cases() -> None:
    torch.manual_seed(0)
    eye = torch.eye(16)
    assert feature_signs(eye)["rank"] == pytest.approx(16, rel=1e-3)
    assert feature_signs(torch.randn(5000, 16))["spread"] == pytest.approx(1.0, abs=0.02)
    scores = 50 * F.one_hot(torch.arange(16) % 4, 8).float()
    signs = cluster_signs(scores, eye)
    assert signs["assigned"] == 4 and signs["steady"] == 1.0
    assert signs["entropy"] == pytest.approx(math.log(4) / math.log(8), abs=1e-4)
    assert signs["information"] == pytest.approx(math.log(4), abs=1e-4)
    # Centroids of four orthogonal tiles each are orthogonal: 0, where a simplex would be -1/3.
    assert signs["bound_distance"] == pytest.approx(1 / 3, abs=1e-5)


def test_noise_scatters_uniform_logits_over_all_clusters() -> None:
    torch.manual_seed(0)
    signs = cluster_signs(torch.zeros(200, 8) + torch.tensor([0.01] + [0.0] * 7), torch.eye(200))
    assert (signs["assigned"], signs["assigned_with_noise"]) == (1, 8)
    assert signs["steady"] < 0.3
