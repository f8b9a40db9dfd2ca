from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from models.encoders.vision import TorchvisionEncoder
from models.errors import SpecificationError
from models.inputs import Picture, Vector

SMALL = ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0", "shufflenet_v2_x0_5", "regnet_y_400mf"]


def pixels(size: int, count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"pixels": torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)}


@pytest.mark.parametrize("backbone", SMALL)
def test_the_last_layer_is_off_and_features_have_the_width(backbone: str) -> None:
    encoder = TorchvisionEncoder(Picture(size=32), backbone=backbone).eval()
    features = encoder(pixels(32))
    assert features.shape == (2, encoder.width)
    assert encoder.width > 100


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_classification_model_of_torchvision_can_be_an_encoder() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    for name in names:
        if name.startswith("regnet"):  # torchvision computes its widths with tensors, which meta tensors can't
            continue
        size = {"inception_v3": 96}.get(name, 224)
        with torch.device("meta"):
            encoder = TorchvisionEncoder(Picture(size=size), backbone=name).eval()
            features = encoder({"pixels": torch.zeros(1, 3, size, size, dtype=torch.uint8)})
        assert features.shape == (1, encoder.width), name


def test_an_unknown_backbone_or_weights_name_is_told_with_what_there_is() -> None:
    with pytest.raises(SpecificationError, match=r"'resnet19' is not one of .*resnet18"):
        TorchvisionEncoder(Picture(), backbone="resnet19")
    with pytest.raises(SpecificationError, match=r"'IMAGENET' is neither a file nor one of none, .*IMAGENET1K_V1"):
        TorchvisionEncoder(Picture(), backbone="resnet18", weights="IMAGENET")
    with pytest.raises(SpecificationError, match="takes image inputs, not vector"):
        TorchvisionEncoder(Vector(length=3))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_weights_are_loaded_whatever_classifier_they_had(tmp_path: Path, suffix: str) -> None:
    source = torchvision.models.resnet18(num_classes=7)
    path = tmp_path / f"weights{suffix}"
    torch.save(source.state_dict(), path) if suffix == ".pth" else save_file(source.state_dict(), path)
    encoder = TorchvisionEncoder(Picture(size=32), weights=str(path), train="head")
    assert torch.equal(encoder.backbone.state_dict()["conv1.weight"], source.state_dict()["conv1.weight"])


def test_local_weights_that_do_not_fit_are_told_by_tensor(tmp_path: Path) -> None:
    state = torchvision.models.resnet18().state_dict()
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor for name, tensor in state.items() if name != "conv1.weight"}, path)
    with pytest.raises(SpecificationError, match=r"has no tensor 'conv1.weight'"):
        TorchvisionEncoder(Picture(), weights=str(path))
    save_file({**state, "conv1.weight": torch.zeros(1, 3, 7, 7)}, path)
    with pytest.raises(
        SpecificationError, match=r"conv1.weight is \(1, 3, 7, 7\) in weights.safetensors, expected \(64, 3, 7, 7\)"
    ):
        TorchvisionEncoder(Picture(), weights=str(path))
    with pytest.raises(SpecificationError, match="there is no file"):
        TorchvisionEncoder(Picture(), weights=str(tmp_path / "nothing.pth"))


def test_a_weights_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "ran"),))  # type: ignore[return-value]

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(SpecificationError, match=r"evil.pth can't be read"):
        TorchvisionEncoder(Picture(), weights=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_a_frozen_backbone_stays_as_it_is_in_training() -> None:
    encoder = TorchvisionEncoder(Picture(size=32), train="head")
    assert encoder.frozen
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train_on(16)
    encoder(pixels(32, 16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_one_picture_can_be_trained_on() -> None:
    encoder = TorchvisionEncoder(Picture(size=32))
    encoder.train_on(1)
    encoder(pixels(32, 1)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())
