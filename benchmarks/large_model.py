"""A generated transformer of any size, converted in little memory.

    python benchmarks/large_model.py --gigabytes 6 --scheme w4 --folder /tmp/large

Makes a decoder with random weights (external data, written a weight at a time), converts it by ``qconvert quantize
--no-measure`` in a process of its own, and prints sizes, time, throughput and that process's peak memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def make_transformer(
    folder: Path, weight_bytes: int, *, width: int = 4096, vocabulary: int = 32000, files: int = 1
) -> Path:
    """A decoder of products and norms of about ``weight_bytes`` in float32, in ``files`` of ``folder``; its path.

    Attention is left out: it has no weights of its own, and what is measured is their conversion.
    """
    path, data = folder / "model.onnx", [folder / f"model.onnx.data{i or ''}" for i in range(files)]
    rng = np.random.default_rng(0)
    block = rng.standard_normal((width, width), np.float32) * np.float32(width**-0.5)
    nodes, initializers, at = [], [], 0
    with ExitStack() as opened:
        streams = [opened.enter_context(place.open("wb")) for place in data]

        def weight(name: str, *shape: int) -> str:
            nonlocal at
            number = min(files - 1, at * files // weight_bytes)
            file = streams[number]
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            count = int(np.prod(shape))
            for key, value in (("location", data[number].name), ("offset", file.tell()), ("length", 4 * count)):
                tensor.external_data.add(key=key, value=str(value))
            left = count
            while left:
                part = np.roll(block.reshape(-1), len(initializers) * 7919)[: min(left, block.size)]
                file.write(part.tobytes())
                left -= part.size
            at += 4 * count
            initializers.append(tensor)
            return name

        def product(x: str, name: str, inputs: int, outputs: int) -> str:
            nodes.append(helper.make_node("MatMul", [x, weight(f"{name}.weight", inputs, outputs)], [name], name=name))
            return name

        nodes.append(helper.make_node("Gather", [weight("table", vocabulary, width), "ids"], ["x0"], name="embed"))
        x, layer = "x0", 0
        while at + 4 * (12 * width * width + width * vocabulary) <= weight_bytes or layer == 0:
            here = f"layer{layer}"
            for name in ("q", "k", "v"):
                product(x, f"{here}.{name}", width, width)
            nodes.append(helper.make_node("Add", [f"{here}.q", f"{here}.k"], [f"{here}.qk"]))
            nodes.append(helper.make_node("Add", [f"{here}.qk", f"{here}.v"], [f"{here}.qkv"]))
            out = product(f"{here}.qkv", f"{here}.o", width, width)
            up = product(out, f"{here}.up", width, 4 * width)
            nodes.append(helper.make_node("Sigmoid", [up], [f"{here}.act"]))
            down = product(f"{here}.act", f"{here}.down", 4 * width, width)
            x, layer = f"x{layer + 1}", layer + 1
            nodes.append(helper.make_node("Add", [f"x{layer - 1}", down], [x]))
        logits = product(x, "logits", width, vocabulary)
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["batch", "sequence", vocabulary])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))
    return path


def main() -> None:
    """Make, convert, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--scheme", default="w4")
    parser.add_argument("--rounding", default="auto")
    parser.add_argument("--files", type=int, default=1, help="data files that the model's weights lie in")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    source = make_transformer(options.folder, int(options.gigabytes * 1e9), files=options.files)
    size = sum(f.stat().st_size for f in options.folder.glob("model.onnx*"))
    target = options.folder / f"{options.scheme}.onnx"
    command = [sys.executable, "-m", "qconvert", "quantize", str(source), "-o", str(target), "--scheme", options.scheme]
    command += ["--rounding", options.rounding, "--no-measure", "--force"]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    after = sum(f.stat().st_size for f in options.folder.glob(f"{target.name}*"))
    print(
        f"{size / 1e9:.2f} GB -> {after / 1e9:.2f} GB in {seconds:.0f} s "
        f"({size / 1e6 / seconds:.0f} MB/s), peak memory {peak:.2f} GB"
    )


if __name__ == "__main__":
    main()
