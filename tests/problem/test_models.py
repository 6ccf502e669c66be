"""timm models fitted to a data set: published sizes, seeds, and refusals before anything trains."""

import csv
import hashlib
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import huggingface_hub
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from harness.config import ConfigError, DatasetConfig, ModelConfig, from_mapping
from harness.planning.model_cost import model_facts, pretrained_digest
from harness.problem import models
from harness.problem.models import build_model, is_timm_model, timm_names

PRESETS = sorted(path.stem for path in Path(str(files("conf"))).glob("model/*.yaml"))
GREY = DatasetConfig("grey", "digits", "", 1, 28, 10, [0.0], [1.0], 1)
COLOUR = DatasetConfig("colour", "digits", "", 3, 32, 10, [0.0] * 3, [1.0] * 3, 1)


def preset(name):
    values = OmegaConf.to_container(OmegaConf.load(Path(str(files("conf"))) / "model" / f"{name}.yaml"))
    return from_mapping(ModelConfig, f"model.{name}", values[name], name=name)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_hold_every_key_and_train_on_small_images(name):
    values = OmegaConf.load(Path(str(files("conf"))) / "model" / f"{name}.yaml")[name]
    assert set(values) == set(ModelConfig.__dataclass_fields__) - {"name"}
    # the one preset whose patches do not fill 28 pixels
    resize = 32 if name == "vit_base_patch16_224" else 28
    assert model_facts(preset(name), replace(GREY, resize=resize)).N > 0
    assert model_facts(preset(name), replace(COLOUR, resize=resize)).N > 0


def test_resnet18_with_the_small_stem_has_its_published_size():
    facts = model_facts(preset("resnet18"), COLOUR)
    # 11,173,962 weights is the usual CIFAR-10 ResNet-18; its 20 BatchNorm layers span 4,800 channels
    assert (facts.N, facts.buffer_floats, facts.running_stats) == (11_173_962, 2 * 4_800 + 20, True)


def published_sizes():
    """Weights by model, of the released code's settings."""
    with (files("harness.report") / "reference" / "cifar10_defaults.csv").open() as file:
        return {row["model"]: int(row["parameters"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("name", "change", "published"),
    [
        ("resnet18", {}, "resnet18"),
        ("resnet18_no_running_stats", {}, "resnet18"),
        ("wide_resnet28_10", {}, "wide_resnet28_10"),
        ("preresnet164_basic", {}, "preresnet164"),
        ("lenet5", {}, "lenet5"),
        ("googlenet", {}, "googlenet"),
        ("vit_base_patch16_224", {"head_classes": 1000}, "vit_base_patch16_224"),
    ],
)
def test_the_papers_models_have_the_released_sizes(name, change, published):
    colour = replace(COLOUR, resize=224) if name == "vit_base_patch16_224" else COLOUR
    weights = model_facts(replace(preset(name), **change), colour).N
    assert weights == published_sizes()[published]


@pytest.mark.parametrize(
    ("name", "change", "N"),
    [
        # the counts of the cited papers' networks, summed by hand from their layers
        ("wide_resnet28_10", {"kwargs": {"bias": False}}, 36_479_194),
        ("preresnet164", {}, 1_703_258),
        ("preresnet164_basic", {"head_classes": None}, 2_669_816 - 990 * 65),
        ("lenet5", {"kwargs": {"width": 1}}, 62_006),
        ("vit_base_patch16_224", {}, 85_806_346),
    ],
)
def test_the_usual_shapes_stand_beside_the_released_ones(name, change, N):
    colour = replace(COLOUR, resize=224) if name == "vit_base_patch16_224" else COLOUR
    assert model_facts(replace(preset(name), **change), colour).N == N


def test_statistics_are_those_of_the_batch_where_none_are_kept():
    config = preset("resnet18_no_running_stats")
    assert model_facts(config, COLOUR).buffer_floats == 0
    assert not model_facts(config, COLOUR).running_stats
    model = build_model(config, replace(GREY, resize=8), 0).eval()
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = model(images)[:2], model(images[:2])
    assert not torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize("name", ["lenet5", "googlenet", "preresnet164"])
def test_every_weight_of_the_papers_models_receives_a_gradient(name):
    dataset = replace(GREY, size=16 if name == "lenet5" else 8)
    model = build_model(preset(name), dataset, 0).train()
    images = torch.randn(2, 1, dataset.size, dataset.size, generator=torch.Generator().manual_seed(0))
    model(images).square().sum().backward()
    assert all(bool(p.grad.any()) for p in model.parameters() if p.dim() > 1)


def test_dropout_of_the_wide_resnet_stands_before_the_last_convolution_of_a_unit():
    model = build_model(preset("wide_resnet28_10"), replace(GREY, size=8), 0).train()
    unit, images = model.stages[0][1], torch.randn(4, 160, 8, 8, generator=torch.Generator().manual_seed(0))
    zeros = []
    for conv in unit.convs:
        conv.register_forward_pre_hook(lambda _, x: zeros.append((x[0] == 0).float().mean().item()))

    def outputs(seed):
        torch.manual_seed(seed)
        return unit(images)

    first = outputs(1)
    # ReLU leaves half of normalised values, of which dropout takes 0.3
    assert zeros == pytest.approx([0.5, 0.65], abs=0.03)
    assert torch.equal(outputs(1), first)
    assert not torch.equal(outputs(2), first)


def test_too_small_images_for_lenet_are_refused_with_sizes_that_fit():
    with pytest.raises(
        ConfigError, match=r"model\.lenet5 refuses images of 8x8 .*at least 16x16.*resize to one of 28, 32"
    ):
        model_facts(preset("lenet5"), replace(GREY, size=8))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_the_trial_on_meta_counts_what_the_real_model_has(name):
    facts, model = model_facts(preset(name), GREY), build_model(preset(name), GREY, 0)
    assert sum(p.numel() for p in model.parameters()) == facts.N
    assert facts.buffer_floats == sum(v.numel() for v in model.state_dict().values()) - facts.N
    assert facts.running_stats == any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_initial_weights_follow_from_the_seed_and_leave_the_global_state_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = build_model(preset("test_resnet"), GREY, 0).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    models._takes_img_size.cache_clear()
    again = build_model(preset("test_resnet"), GREY, 0).state_dict()
    other = build_model(preset("test_resnet"), GREY, 1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


@pytest.mark.parametrize("name", ["resnet18", "test_resnet"])
def test_the_small_stem_keeps_the_resolution(name):
    model = build_model(replace(preset(name), stem="small"), GREY, 0)
    shapes = []
    model.layer1.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape[-2:]))
    model(torch.zeros(2, 1, 28, 28))
    assert shapes == [(28, 28)]


@pytest.mark.parametrize("timm_name", ["test_vit", "vit_tiny_patch16_224"])
def test_patches_that_would_cut_images_are_refused_with_those_that_fit(timm_name):
    config = ModelConfig("mine", timm_name)
    with pytest.raises(ConfigError, match=r"^model\.mine refuses images of 28x28") as caught:
        model_facts(config, GREY)
    fitting = re.search(r"model\.mine\.patch_size to one of ([\d, ]+) or", str(caught.value)).group(1)
    assert fitting == "2, 4, 7, 14"
    resize = re.search(r"dataset\.grey\.resize to one of ([\d, ]+)", str(caught.value)).group(1)
    # all candidates but 28 itself are multiples of 16
    assert resize == "32, 64, 96, 128, 160, 192, 224, 256, 288, 384"


def test_too_small_images_are_refused_with_sizes_that_fit():
    with pytest.raises(ConfigError, match=r"dataset\.grey\.resize to one of 32, 64") as caught:
        model_facts(ModelConfig("mine", "vgg11"), GREY)
    assert "patch_size" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert model_facts(ModelConfig("mine", "vgg11"), replace(GREY, resize=32)).N > 0


def test_an_image_size_unlike_the_images_is_named():
    config = ModelConfig("mine", "vit_tiny_patch16_224", img_size=64, patch_size=4)
    with pytest.raises(ConfigError, match=r"model\.mine\.img_size to 28 or dataset\.grey\.resize to one of 64$"):
        model_facts(config, GREY)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timm": "resnet19"}, r"model\.m\.timm must be a timm model, got 'resnet19'; nearest: .*resnet18"),
        (
            {"timm": "resnet18.mine"},
            r"model\.m\.timm must be a timm model, got 'resnet18.mine'; (nearest|one of): resnet18\.",
        ),
        ({"img_size": 28}, r"model\.m\.img_size must be left out: resnet18 does not take it, got 28"),
        ({"timm": "hrnet_w18", "patch_size": 4}, r"model\.m\.patch_size must be left out: hrnet_w18 does not take it"),
        ({"kwargs": {"widht": 2}}, r"model\.m\.kwargs\.widht must be left out: resnet18 does not take it, got 2"),
        (
            {"kwargs": {"num_classes": 5}},
            r"model\.m\.kwargs must not hold num_classes \(set by model\.m\.head_classes\)",
        ),
        ({"head_classes": 9}, r"model\.m\.head_classes must be at least 10, the classes of grey, got 9"),
        ({"kwargs": {"drop_rate": 0.5}}, r"model\.m\.kwargs must not hold drop_rate \(set by model\.m\.drop_rate\)"),
        ({"in_chans": 3}, r"model\.m\.in_chans must be 1 for dataset grey, got 3"),
        ({"timm": "test_vit", "patch_size": 7, "stem": "small"}, r"model\.m\.stem must be default for test_vit"),
        ({"pretrained": "no/such.safetensors"}, r"model\.m\.pretrained must be true, false or the path"),
        ({"timm": "resnet10t_", "pretrained": True}, r"model\.m\.timm must be a timm model"),
        ({"kwargs": {"output_stride": 7}}, r"model\.m cannot be built from timm's resnet18: \w"),
        # bare asserts of timm's say nothing: the line of code is the reason
        (
            {"timm": "test_efficientnet", "kwargs": {"norm_layer": "evonorms0"}},
            r"model\.m cannot be built from timm's test_efficientnet: AssertionError at .*C % groups == 0",
        ),
        (
            {"timm": "test_efficientnet", "kwargs": {"norm_layer": 3}},
            r"model\.m cannot be built from timm's test_efficientnet: AssertionError at assert isinstance\(norm_layer",
        ),
        ({"timm": "test_efficientnet", "kwargs": {"norm_layer": "foo"}}, r"model\.m cannot .*: KeyError: 'foo'"),
    ],
)
def test_bad_values_are_named_in_one_line(values, message):
    with pytest.raises(ConfigError, match="^" + message) as caught:
        model_facts(ModelConfig(**{"name": "m", "timm": "resnet18", **values}), GREY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "mixer_s16_224", "convnext_atto"])
def test_any_timm_name_is_fitted_to_the_images_also_one_that_must_know_their_size(name):
    assert model_facts(ModelConfig("mine", name), COLOUR).N > 0


def test_names_are_timms_own():
    assert is_timm_model("resnet18")
    assert is_timm_model("resnet18.a1_in1k")
    assert not is_timm_model("resnet18.not_a_tag")
    assert not is_timm_model("no_such_model")
    assert {"test_resnet", "vit_tiny_patch16_224"} <= set(timm_names())


def test_weights_come_from_a_file_and_are_identified_by_its_content(tmp_path):
    path = tmp_path / "weights.safetensors"
    saved = build_model(preset("test_resnet"), GREY, 1).state_dict()
    save_file(saved, path)
    config = replace(preset("test_resnet"), pretrained=str(path))
    loaded = build_model(config, GREY, 0).state_dict()
    assert torch.equal(loaded["layer1.0.conv1.weight"], saved["layer1.0.conv1.weight"])
    assert pretrained_digest(config) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert pretrained_digest(preset("test_resnet")) is None
    assert "timm/resnet18.a1_in1k" in pretrained_digest(ModelConfig("m", "resnet18", pretrained=True))


def test_weights_that_the_hub_client_keeps_are_read_without_the_network(tmp_path, monkeypatch):
    """A kept repository in the client's layout; the hub itself is out of reach."""
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    kept = repository / "snapshots" / "0" / "model.safetensors"
    kept.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0")
    plain = ModelConfig("mine", "test_resnet")
    saved = build_model(plain, replace(COLOUR, classes=1000), 1).state_dict()
    save_file(saved, kept)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: pytest.fail("asked the hub"))
    loaded = build_model(replace(plain, pretrained=True), COLOUR, 0).state_dict()
    assert torch.equal(loaded["layer1.0.conv1.weight"], saved["layer1.0.conv1.weight"])
    assert loaded["fc.weight"].shape[0] == 10


def test_a_file_that_holds_no_weights_is_refused_in_one_line(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"^model\.test_resnet\.pretrained must name weights that load") as caught:
        build_model(replace(preset("test_resnet"), pretrained=str(path)), GREY, 0)
    assert "\n" not in str(caught.value)
