"""LPIPS on both backbones against torch's layers, with the same random weights."""

import numpy as np
import pytest

from diffux.evaluation import perceptual
from tests.evaluation.test_perceptual import weights

torch = pytest.importorskip("torch")
nn = torch.nn
SHIFT, SCALE = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])


def alexnet():
    """The layers of torchvision's alexnet().features, by number."""
    return [
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip


def vgg16():
    layers, before = [], 3
    for width in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512):
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
    return layers


COMPARED = {"AlexNet": (alexnet, (1, 4, 7, 9, 11)), "VGG-16": (vgg16, (3, 8, 15, 22, 29))}  # after these layers


def theirs(backbone, arrays, images, truth):
    make, after = COMPARED[backbone]
    layers = nn.Sequential(*make())
    layers.load_state_dict({name.split(".", 2)[2]: torch.tensor(value) for name, value in arrays.items() if name.startswith("net")})
    total = 0
    with torch.no_grad():
        a, b = ((torch.tensor(2 * x - 1, dtype=torch.float32) - SHIFT) / SCALE for x in (images, truth))
        a, b = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)
        for number, layer in enumerate(layers):
            a, b = layer(a), layer(b)
            if number in after:
                unit = [x / (torch.sqrt((x**2).sum(1, keepdim=True)) + 1e-10) for x in (a, b)]
                weight = torch.tensor(arrays[f"lin{after.index(number)}.model.1.weight"])
                total += nn.functional.conv2d((unit[0] - unit[1]) ** 2, weight).mean((1, 2, 3))
    return total.numpy()


@pytest.mark.parametrize(
    "backbone, sides", [("AlexNet", (31, 31)), ("AlexNet", (64, 50)), ("VGG-16", (16, 16)), ("VGG-16", (33, 40))], ids=str
)
def test_it_is_that_of_torch(backbone, sides, tmp_path):
    arrays = weights(backbone)
    np.savez(tmp_path / "weights.npz", **arrays)
    rng = np.random.default_rng(1)
    truth = rng.random((2, *sides, 3)).astype(np.float32)
    images = np.clip(truth + 0.3 * rng.standard_normal(truth.shape).astype(np.float32), 0, 1)
    want = theirs(backbone, arrays, images, truth)
    assert want.min() > 0.1
    np.testing.assert_allclose(perceptual.lpips(tmp_path / "weights.npz")(images, truth), want, rtol=1e-5)


@pytest.mark.parametrize("backbone, least", [("AlexNet", 31), ("VGG-16", 16)])
def test_smaller_images_leave_nothing_in_torch_either(backbone, least):
    make, _ = COMPARED[backbone]
    layers = nn.Sequential(*make())
    assert layers(torch.zeros(1, 3, least, least)).shape[-1] == 1
    with pytest.raises(RuntimeError, match="too small"):
        layers(torch.zeros(1, 3, least - 1, least - 1))
