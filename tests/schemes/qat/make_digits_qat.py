"""Trains digits_qat.onnx with fake quantization and exports it, as PyTorch does both.

    pip install torch==2.14.1 onnx numpy
    python tests/schemes/qat/make_digits_qat.py

Ranges are learned while training: scales of weights a channel, those of activations by moving averages. Only the test
beside it needs the model, and nothing needs PyTorch.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    prepare_qat,
)

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "calibration_data" / "digits_cnn"

# the fused modules of the default configurations have no ONNX form
ACTIVATION = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8
)
WEIGHT = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver,
    quant_min=-128,
    quant_max=127,
    dtype=torch.qint8,
    qscheme=torch.per_channel_symmetric,
)


class Net(nn.Module):
    """8x8 digits: two convolutions and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.one, self.two, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1), nn.Linear(256, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.one(self.quant(image)))
        x = torch.relu(self.two(x))
        return self.last(torch.flatten(x, 1))


def main() -> None:
    """Train, freeze the ranges, export."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = torch.from_numpy(np.load(DATA / "eval.npz")["image"])
    labels = torch.from_numpy(np.load(DATA / "labels.npy").astype(np.int64))
    net = Net()
    net.qconfig = QConfig(activation=ACTIVATION, weight=WEIGHT)
    net = prepare_qat(net.train())
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
    net.eval()
    net.apply(torch.ao.quantization.disable_observer)
    print("top-1 on the training images", (net(images).argmax(1) == labels).float().mean().item())
    torch.onnx.export(
        net, (images[:1],), HERE / "digits_qat.onnx", input_names=["image"], output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}}, opset_version=17, dynamo=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
