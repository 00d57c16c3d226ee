# SPDX-License-Identifier: Apache-2.0
"""Train the sample models and write their calibration and evaluation data.

Usage::

    python sample_models/train/train_digits.py cnn|transformer|gru|all [--root DIR]

Every model classifies the 1797 handwritten digits (8x8 pixels, integer values 0..16) that scikit-learn ships with
``sklearn.datasets.load_digits``; nothing is downloaded. For each model the script

* trains from a fixed seed on the training split, with hyper-parameters and epoch count fixed in advance: the
  evaluation split takes no part in training and selects no checkpoint;
* exports ``sample_models/digits_<name>.onnx`` (opset 17, dynamic batch axis);
* writes ``calibration_data/digits_<name>/{calib.npz,eval.npz,labels.npy}``;
* checks the exported file with onnxruntime against PyTorch and reports its accuracy on the evaluation split.

Needs torch, scikit-learn, numpy, onnx and onnxruntime. The results repeat byte for byte on the same machine and
package versions; other CPUs or PyTorch builds may round differently, which changes the weights slightly.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

SEED = 20240229
TRAIN_COUNT, CALIB_COUNT, EVAL_COUNT = 1197, 100, 500
SIDE, LEVELS, CLASSES = 8, 17, 10  # image side in pixels, grey levels (0..16), digit classes
SEQUENCE_INPUTS = ("input_ids", "attention_mask")  # inputs whose second axis may vary
BATCH, OPSET = 64, 17
Arrays = dict[str, np.ndarray]
Tensors = tuple[Tensor, ...]


def conv_bn(cin: int, cout: int, kernel: int, act: nn.Module | None, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalization and an optional activation."""
    conv = nn.Conv2d(cin, cout, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), *([act] if act is not None else []))


def separable(cin: int, cout: int, stride: int = 1, last_act: nn.Module | None = None) -> nn.Sequential:
    """Depthwise 3x3 convolution with ReLU6, then a pointwise 1x1 convolution."""
    return nn.Sequential(conv_bn(cin, cin, 3, nn.ReLU6(), stride, groups=cin), conv_bn(cin, cout, 1, last_act))


class Residual(nn.Module):
    """A block with a skip connection: ``relu(x + body(x))``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.body(x))


class DigitsCnn(nn.Module):
    """Stem, depthwise-separable blocks and two residual blocks (32-64-128 channels), pooled into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(1, 32, 3, nn.ReLU()),
            separable(32, 64, last_act=nn.ReLU6()),
            Residual(nn.Sequential(conv_bn(64, 64, 3, nn.ReLU()), conv_bn(64, 64, 3, None))),
            separable(64, 128, stride=2, last_act=nn.ReLU6()),
            Residual(separable(128, 128)),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Linear(128, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(image), 1))


class EncoderLayer(nn.Module):
    """Pre-norm transformer encoder layer: multi-head self-attention and a GELU feed-forward network."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.attention_norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.attention_out = nn.Linear(dim, dim)
        self.ffn_in, self.ffn_out = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def split_heads(self, x: Tensor) -> Tensor:
        """[batch, sequence, dim] -> [batch, heads, sequence, head_dim]."""
        return x.view(x.size(0), x.size(1), self.heads, self.head_dim).permute(0, 2, 1, 3)

    def attention(self, x: Tensor, additive_mask: Tensor) -> Tensor:
        query, key, value = (self.split_heads(proj(x)) for proj in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.head_dim)
        context = torch.matmul(functional.softmax(scores + additive_mask, dim=-1), value).permute(0, 2, 1, 3)
        return self.attention_out(context.reshape(x.size(0), x.size(1), self.heads * self.head_dim))

    def forward(self, x: Tensor, additive_mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), additive_mask))
        return x + self.dropout(self.ffn_out(functional.gelu(self.ffn_in(self.ffn_norm(x)))))


class DigitsTransformer(nn.Module):
    """Transformer encoder over the 64 pixels of an image; a token id is the grey level of one pixel."""

    positions: Tensor

    def __init__(self, dim: int = 64, heads: int = 4, layers: int = 3, hidden: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(LEVELS, dim)
        self.position_embedding = nn.Embedding(SIDE * SIDE, dim)
        self.register_buffer("positions", torch.arange(SIDE * SIDE).unsqueeze(0), persistent=False)
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        kept = attention_mask.to(torch.float32)
        additive_mask = (1.0 - kept.unsqueeze(1).unsqueeze(2)) * torch.finfo(torch.float32).min
        x = self.token_embedding(input_ids) + self.position_embedding(self.positions[:, : input_ids.size(1)])
        for layer in self.layers:
            x = layer(x, additive_mask)
        weights = kept.unsqueeze(-1)
        pooled = (self.norm(x) * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return self.classifier(pooled)


class DigitsGru(nn.Module):
    """GRU over the 8 pixel rows; its last state goes through a two-layer perceptron."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.gru = nn.GRU(SIDE, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(hidden, 128), nn.ReLU(), nn.Linear(128, CLASSES))

    def forward(self, rows: Tensor) -> Tensor:
        _, state = self.gru(rows)
        return self.head(state[-1])


def load_splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Cut the digits into train, calib and eval parts with a seeded permutation.

    A part is a pair: grey levels as int64 [samples, 8, 8] and digit labels as int64 [samples].
    """
    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, SIDE, SIDE).astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(images))
    if len(order) != TRAIN_COUNT + CALIB_COUNT + EVAL_COUNT:
        raise RuntimeError(f"load_digits returned {len(order)} samples, not the expected 1797")
    parts = np.split(order, [TRAIN_COUNT, TRAIN_COUNT + CALIB_COUNT])
    names = ("train", "calib", "eval")
    return {name: (images[part], labels[part].astype(np.int64)) for name, part in zip(names, parts, strict=True)}


def model_inputs(name: str, pixels: np.ndarray) -> Arrays:
    """Return the input arrays of one model by input name, samples first."""
    scaled = (pixels / (LEVELS - 1)).astype(np.float32)
    if name == "cnn":
        return {"image": scaled[:, None]}
    if name == "gru":
        return {"rows": scaled}
    input_ids = pixels.reshape(len(pixels), -1)
    return {"input_ids": input_ids, "attention_mask": np.ones_like(input_ids)}


def augment_scaled(batch: Tensors) -> Tensors:
    """Add a little noise to pixels scaled to 0..1."""
    return ((batch[0] + 0.03 * torch.randn_like(batch[0])).clamp(0.0, 1.0),)


def augment_tokens(batch: Tensors) -> Tensors:
    """Move grey levels by up to one step and mask a tenth of the tokens, so that the model learns to use the mask."""
    ids, mask = batch
    return (ids + torch.randint(-1, 2, ids.shape)).clamp(0, LEVELS - 1), mask * (torch.rand(mask.shape) > 0.1).long()


@dataclass(frozen=True)
class Recipe:
    """How one model is built, trained and exported."""

    build: Callable[[], nn.Module]
    augment: Callable[[Tensors], Tensors]
    epochs: int
    learning_rate: float
    weight_decay: float
    fold_constants: bool = True


RECIPES = {
    "cnn": Recipe(DigitsCnn, augment_scaled, 40, 3e-3, 1e-3, fold_constants=False),
    "transformer": Recipe(DigitsTransformer, augment_tokens, 60, 2e-3, 1e-2),
    "gru": Recipe(DigitsGru, augment_scaled, 60, 5e-3, 1e-4),
}


def train(recipe: Recipe, inputs: Arrays, targets: np.ndarray) -> nn.Module:
    """Train with AdamW, a one-cycle learning rate (warm-up, cosine decay) and light label smoothing."""
    torch.manual_seed(SEED)
    model = recipe.build().train()
    tensors = tuple(torch.from_numpy(array) for array in inputs.values())
    labels = torch.from_numpy(targets)
    steps = len(labels) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps, pct_start=0.15
    )
    for epoch in range(1, recipe.epochs + 1):
        order = torch.randperm(len(labels))
        total = 0.0
        for chosen in order[: steps * BATCH].split(BATCH):
            batch = recipe.augment(tuple(tensor[chosen] for tensor in tensors))
            loss = functional.cross_entropy(model(*batch), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        if epoch % 10 == 0:
            print(f"  epoch {epoch:3d}/{recipe.epochs}: training loss {total / steps:.4f}", flush=True)
    return model.eval()


def export(recipe: Recipe, model: nn.Module, example: Arrays, path: Path) -> None:
    """Write the ONNX file with dynamic batch (and sequence) axes.

    ``TrainingMode.PRESERVE`` on a model in evaluation mode exports inference nodes and keeps every BatchNormalization
    apart from its convolution; the default mode would fold them.
    """
    axes = {name: {0: "batch"} | ({1: "sequence"} if name in SEQUENCE_INPUTS else {}) for name in example}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its own deprecation and traced constants
        torch.onnx.export(
            model,
            tuple(torch.from_numpy(array[:2]) for array in example.values()),
            path,
            input_names=list(example),
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch"}},
            opset_version=OPSET,
            do_constant_folding=recipe.fold_constants,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )
    onnx.checker.check_model(str(path), full_check=True)


def verify(model: nn.Module, inputs: Arrays, labels: np.ndarray, path: Path) -> None:
    """Compare onnxruntime with PyTorch on the evaluation split and print the accuracy of the exported file."""
    logits = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["logits"], inputs)[0]
    with torch.no_grad():
        reference = model(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    np.testing.assert_allclose(logits, reference, rtol=1e-3, atol=1e-4)
    correct = int((logits.argmax(1) == labels).sum())
    params = sum(parameter.numel() for parameter in model.parameters())
    print(f"  {path.name}: {params} parameters, {path.stat().st_size} bytes, eval accuracy {correct}/{len(labels)}")


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description="Train the sample models and write their data.")
    parser.add_argument("model", choices=[*RECIPES, "all"])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="folder to write below")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    splits = load_splits()
    for name in RECIPES if args.model == "all" else [args.model]:
        print(f"digits_{name}", flush=True)
        recipe = RECIPES[name]
        model_path = args.root / "sample_models" / f"digits_{name}.onnx"
        data_dir = args.root / "calibration_data" / f"digits_{name}"
        model_path.parent.mkdir(parents=True, exist_ok=True)
        data_dir.mkdir(parents=True, exist_ok=True)
        inputs = {part: model_inputs(name, pixels) for part, (pixels, _) in splits.items()}
        np.savez_compressed(data_dir / "calib.npz", **inputs["calib"])
        np.savez_compressed(data_dir / "eval.npz", **inputs["eval"])
        np.save(data_dir / "labels.npy", splits["eval"][1])
        model = train(recipe, inputs["train"], splits["train"][1])
        export(recipe, model, inputs["calib"], model_path)
        verify(model, inputs["eval"], splits["eval"][1], model_path)


if __name__ == "__main__":
    main()
