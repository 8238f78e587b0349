"""Families of models: every reference model, and of each file of torchvision's models the cheapest one."""

from __future__ import annotations

import math

import pytest

from graphgrow.errors import ModelError
from graphgrow.models import MODELS
from graphgrow.store.names import import_torchvision
from tools.sweep.names import chosen, cost_of, family_models
from tools.sweep.small_timm import FAMILIES, SHORTENED

import_torchvision()  # timm imports it


def test_the_own_family_is_every_reference_model() -> None:
    assert family_models("graphgrow") == [f"graphgrow:{name}" for name in MODELS]


def test_one_classifier_for_each_file_of_torchvision() -> None:
    names = family_models("classification")
    # GFLOPs and parameters as on torchvision's table of weights
    assert {"torchvision:resnet18", "torchvision:regnet_y_400mf", "torchvision:shufflenet_v2_x0_5"} <= set(names)
    assert "torchvision:vit_b_32" in names  # 4.4 GFLOPs; vit_b_16 has fewer parameters and 17.6
    assert not any("resnet50" in name or "fcn" in name for name in names)
    assert len(names) == len(set(names)) >= 17


def test_segmentation_is_a_folder_of_its_own() -> None:
    names = family_models("segmentation")
    assert names == [
        "torchvision:deeplabv3_mobilenet_v3_large",
        "torchvision:fcn_resnet50",
        "torchvision:lraspp_mobilenet_v3_large",
    ]


def test_every_model_of_torchvision_that_takes_tensors() -> None:
    names = family_models("torchvision")
    assert {"torchvision:resnet50", "torchvision:raft_small", "torchvision:r3d_18", "torchvision:vgg11_bn"} <= set(
        names
    )
    assert "torchvision:quantized_resnet18" in names  # in floating point, unless it is asked to be quantised
    assert not any("rcnn" in name or "ssd" in name or "retinanet" in name for name in names)
    assert len(names) == len(set(names)) > 100


def test_one_model_of_each_family_of_timm() -> None:
    names = family_models("timm")
    assert len(names) == len(set(names)) == 98
    timm = pytest.importorskip("timm")
    assert list(FAMILIES) == sorted(timm.list_modules())
    assert all(name in timm.list_models(module=family) for family, name in FAMILIES.items())
    assert set(SHORTENED) <= set(FAMILIES.values())


def test_what_metadata_lack_counts_as_endless() -> None:
    assert cost_of({"_ops": 1.5, "num_params": 7}) == (1.5, 7.0)
    assert cost_of({"num_params": 7}) == (math.inf, 7.0)
    assert cost_of({}) > cost_of({"num_params": 10**12}) > cost_of({"_ops": 1e9})


def test_named_models_come_first_and_once() -> None:
    names = chosen(["graphgrow:vit", "torchvision:resnet18"], ["graphgrow"])
    assert names[:2] == ["graphgrow:vit", "torchvision:resnet18"]
    assert sorted(names[2:]) == sorted(f"graphgrow:{name}" for name in MODELS if name != "vit")


def test_an_unknown_family_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelError, match=r"'flowers'; there are classification, .*graphgrow, .*segmentation"):
        family_models("flowers")
