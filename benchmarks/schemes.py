"""Every scheme on every pack: a Markdown table of size, metric and speed.

    python benchmarks/schemes.py PACKS                                # all of it, to stdout
    python benchmarks/schemes.py PACKS --state cells.json --minutes 4 # as far as it comes; run again to go on
    python benchmarks/schemes.py PACKS --packs superres_x3 --schemes int8 "w4 --rounding hqq"
    python benchmarks/schemes.py PACKS --state cells.json --redo --schemes w4 w2   # these once more
    python benchmarks/schemes.py PACKS --state cells.json --minutes 0 --form summary   # means over packs
    python benchmarks/schemes.py PACKS --state cells.json --minutes 0 --form compact --write README.md

A pack is a folder with ``model.onnx`` (or ``model.f16.onnx``, whose float16 weights are widened first), calibration and
evaluation inputs (``calib.npz``, ``eval.npz``, or ``*_jpeg.npz``: JPEG files one after the other, with their offsets),
``labels.npy`` where there are labels, and ``pack.yaml``: the metric, and for each input how stored values become what
the model takes. Both sets are written out as the model's own inputs; all else is what users do, ``qconvert quantize``,
each cell in a process of its own.

A cell holds the size of the file as a share of the float one, the metric (SQNR of the outputs where the pack has none
that qconvert knows) and the speed relative to the float model: one thread, processor time, the median over interleaved
runs. A combination that is refused, or fails, shows why in its place.

``--form`` is what is printed: a ``compact`` table (size, metric, speed), a ``full`` one (with the SQNR on the
calibration samples that judge), or a ``summary`` of means. ``--write`` puts it into a page as well: a table between
``<!-- schemes:begin -->`` and ``<!-- schemes:end -->``, a summary between ``<!-- means:begin -->`` and its end.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import math
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import numpy_helper

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.evaluate.latency import measure_latency, speedup, thread_clock
from qconvert.graph.model import load
from qconvert.graph.signature import session_of

SCHEMES = (
    "int8", "dynamic", "w8", "w4", "w2", "a16w8", "a16w4", "fp16", "bf16", "fp8", "nf4",
    "nf4 --weight-format qdq", "fp4", "palette:256", "palette:16", "binary",
)  # fmt: skip
# what heads the column of a pack; its folder's name where there is nothing here
TITLES = {
    "dscnn_mlperf_kws": "DS-CNN",
    "minilm_l6_v2_stsb": "MiniLM-L6",
    "mobilenetv1_025_imagenet": "MobileNetV1 0.25",
    "resnet8_mlperf_cifar10": "ResNet-8",
    "stories260k_llama": "stories260K",
    "superres_x3": "Sub-pixel CNN x3",
    "ultraface_rfb320": "UltraFace",
}
# names in packs -> names in qconvert
METRICS = {
    "top1": "top1",
    "top5": "top5",
    "spearman_cosine": "spearman",
    "perplexity": "perplexity",
    "psnr": "psnr",
}
FLOAT = "float"
_LIMIT_S = 600
_TIMING_S = 1.5


def main() -> None:
    """Make the cells that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of packs")
    parser.add_argument("--packs", nargs="*", help="only these")
    parser.add_argument("--schemes", nargs="*", default=list(SCHEMES), help="only these; options may follow the name")
    parser.add_argument("--state", type=Path, help="keep finished cells in this file, and begin with those in it")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no cell after so many")
    parser.add_argument("--redo", action="store_true", help="make the cells that --packs and --schemes name once more")
    parser.add_argument("--form", choices=("compact", "full", "summary"), default="full", help="what is printed")
    parser.add_argument("--write", type=Path, help="put what is printed into this page, between its markers")
    parser.add_argument("--work", type=Path, help="where inputs and models are written")
    choice = parser.parse_args()
    folders = sorted(p.parent for p in choice.folder.glob("*/pack.yaml"))
    folders = [f for f in folders if not choice.packs or f.name in choice.packs]
    if not folders:
        sys.exit(f"{choice.folder}: no packs (folders with a pack.yaml)")
    cells: dict[str, dict[str, Any]] = {}
    if choice.state is not None and choice.state.exists():
        cells = json.loads(choice.state.read_text(encoding="utf-8"))
    if choice.redo:
        again = {f"{f.name} | {scheme}" for f in folders for scheme in choice.schemes}
        cells = {key: found for key, found in cells.items() if key not in again}
    end = time.monotonic() + 60 * choice.minutes
    with tempfile.TemporaryDirectory() as temporary:
        work = choice.work or Path(temporary)
        for folder in folders:
            for scheme in (FLOAT, *choice.schemes):
                key = f"{folder.name} | {scheme}"
                if key in cells or time.monotonic() > end:
                    continue
                if scheme == FLOAT:
                    cells[key] = float_cell(folder, work / folder.name)
                else:
                    cells[key] = cell(folder, scheme, work / folder.name)
                print(f"{key}: {text_of(cells[key])}", file=sys.stderr, flush=True)
                if choice.state is not None:
                    choice.state.write_text(json.dumps(cells, indent=1), encoding="utf-8")
    names = [f.name for f in folders]
    if choice.form == "summary":
        text = summary(names, choice.schemes, cells)
    else:
        text = table(names, choice.schemes, cells, full=choice.form == "full")
    print(text)
    if choice.write is not None:
        write_between_markers(choice.write, "means" if choice.form == "summary" else "schemes", text)


def cell(folder: Path, scheme: str, work: Path) -> dict[str, Any]:
    """Quantize the pack's model: {size, metric, after, sqnr_db, speed}, or {reason}."""
    pack = yaml.safe_load((folder / "pack.yaml").read_text(encoding="utf-8"))
    model, quantized, report = prepared(folder, pack, work), work / "quantized.onnx", work / "report.json"
    metric = metric_of(folder, pack)
    command = ["quantize", str(model), "--scheme", *shlex.split(scheme), "--calib", str(work / "calib.npz")]
    # where there is a metric, it alone is taken on the evaluation samples: half the runs
    command += [] if metric else ["--eval", str(work / "eval.npz")]
    report.unlink(missing_ok=True)
    began = time.monotonic()
    done = qconvert(*command, "-o", str(quantized), "--report", str(report), "--force", "-q")
    if isinstance(done, str) or not report.exists():
        return {"reason": (done if isinstance(done, str) else first_line(done)).replace(f"{model}: ", "")}
    found = json.loads(report.read_text(encoding="utf-8"))
    sqnr = found["accuracy"]["comparison"]["fidelity"]["sqnr_db"]
    return {
        "size": found["output"]["bytes"] / found["model"]["bytes"],
        "metric": metric or "SQNR",
        "after": score(quantized, folder, metric, work) if metric else sqnr,
        "sqnr_db": sqnr,
        "speed": speed(model, quantized, work / "eval.npz"),
        "seconds": time.monotonic() - began,
    }


def float_cell(folder: Path, work: Path) -> dict[str, Any]:
    """The float model itself."""
    pack = yaml.safe_load((folder / "pack.yaml").read_text(encoding="utf-8"))
    model, metric = prepared(folder, pack, work), metric_of(folder, pack)
    return {
        "size": 1.0,
        "metric": metric or "SQNR",
        "after": score(model, folder, metric, work) if metric else None,
        "sqnr_db": math.inf,
        "speed": 1.0,
    }


def metric_of(folder: Path, pack: dict[str, Any]) -> str | None:
    """The pack's metric under qconvert's name, where there is one, and labels."""
    return METRICS.get(pack.get("metric", "")) if (folder / "labels.npy").exists() else None


def score(model: Path, folder: Path, metric: str, work: Path) -> float:
    """The metric of ``model`` on the evaluation samples."""
    labels = ["--labels", str(folder / "labels.npy"), "--metric", metric]
    done = qconvert("evaluate", str(model), "--data", str(work / "eval.npz"), *labels, "--json")
    if isinstance(done, str) or done.returncode:
        sys.exit(f"{model}: {done if isinstance(done, str) else done.stderr}")
    return float(json.loads(done.stdout)["metric"]["value"])


def speed(model: Path, quantized: Path, data: Path) -> float:
    """How many times as fast as ``model`` ``quantized`` is: one thread, processor time, in turn, median of pairs."""
    sessions = {name: session_of(load(path), threads=1) for name, path in (("fp32", model), ("q", quantized))}
    feed = open_data_set(DataSpec(sources=(str(data),)), sessions["fp32"].inputs).feed(0)
    times = measure_latency(sessions, feed, seconds=_TIMING_S, clock=thread_clock())
    return speedup(times["fp32"], times["q"]).median


def qconvert(*arguments: str) -> subprocess.CompletedProcess[str] | str:
    """The command line in a process of its own; a sentence where that takes too long."""
    command = [sys.executable, "-m", "qconvert", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {_LIMIT_S} s"


def first_line(done: subprocess.CompletedProcess[str]) -> str:
    """What it said."""
    return next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")


def prepared(folder: Path, pack: dict[str, Any], work: Path) -> Path:
    """The float model, with ``calib.npz`` and ``eval.npz`` in ``work``; made once."""
    work.mkdir(parents=True, exist_ok=True)
    for split in ("calib", "eval"):
        if not (work / f"{split}.npz").exists():
            np.savez(work / f"{split}.npz", **inputs(folder, pack, split))
    if (folder / "model.onnx").exists():
        return folder / "model.onnx"
    wide = work / "model.onnx"
    if not wide.exists():
        model = onnx.load(folder / "model.f16.onnx")
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT16:
                widened = numpy_helper.to_array(tensor).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(widened, tensor.name))
        onnx.save(model, wide)
    return wide


def inputs(folder: Path, pack: dict[str, Any], split: str) -> dict[str, np.ndarray]:
    """The samples of ``split`` as the model takes them, by input."""
    specs = pack["inputs"]
    plain = folder / f"{split}.npz"
    if plain.exists():
        with np.load(plain, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    else:
        arrays = {"image": images(folder / f"{split}_jpeg.npz", next(iter(specs.values())).get("resize"))}
    if len(arrays) == 1 and len(specs) == 1:
        arrays = dict(zip(specs, arrays.values(), strict=True))
    return {name: as_input(arrays[name], specs[name]) for name in specs}


def images(path: Path, resize: list[Any] | None) -> np.ndarray:
    """JPEG files, one after the other in one array, as [n, height, width, 3] uint8; ``resize``: width, height, how."""
    from PIL import Image

    found = []
    with np.load(path, allow_pickle=False) as stored:
        data, offsets = stored["data"], stored["offsets"]
    for start, end in itertools.pairwise(offsets):
        image = Image.open(io.BytesIO(data[start:end].tobytes())).convert("RGB")
        if resize:
            image = image.resize((resize[0], resize[1]), Image.Resampling[str(resize[2]).upper()])
        found.append(np.asarray(image))
    return np.stack(found)


def as_input(stored: np.ndarray, spec: dict[str, Any]) -> np.ndarray:
    """uint8: (x * scale - mean) / std, channels and axes in the model's order; int8: (x - zero_point) * scale."""
    x = stored
    if x.dtype == np.uint8:
        x = x.astype(np.float32)
        if spec.get("channels") == "BGR":
            x = x[..., ::-1]
        x = x * np.float32(spec.get("scale", 1.0))
        x = x - np.asarray(spec.get("mean") or 0, np.float32)
        x = x / np.asarray(spec.get("std") or 1, np.float32)
        if spec.get("layout") == "NCHW":
            x = x.transpose(0, 3, 1, 2)
    elif x.dtype == np.int8:
        x = (x.astype(np.float32) - np.float32(spec["zero_point"])) * np.float32(spec["scale"])
    return np.ascontiguousarray(x.astype(spec.get("dtype", "float32")))


def table(packs: list[str], schemes: list[str], cells: dict[str, dict[str, Any]], *, full: bool) -> str:
    """Schemes down, packs across, and below what the numbers in brackets say."""
    heads = [head_of(p, cells.get(f"{p} | {FLOAT}", {})) for p in packs]
    lines = [" | ".join(["| scheme", *heads]) + " |", "|---" * (len(packs) + 1) + "|"]
    reasons: dict[str, int] = {}
    for scheme in schemes:
        row = []
        for pack in packs:
            found = cells.get(f"{pack} | {scheme}", {"reason": "not run"})
            text = text_of(found, full=full)
            if "reason" in found:
                text = f"none ({reasons.setdefault(text, len(reasons) + 1)})"
            row.append(text)
        lines.append(" | ".join([f"| `{scheme}`", *row]) + " |")
    columns = "size of the file, metric, SQNR, speed" if full else "size of the file, metric, speed"
    lines += ["", f"A cell: {columns}; size and speed are relative to float."]
    lines += ["", *(f"({number}) {reason}" for reason, number in reasons.items())] if reasons else []
    return "\n".join(lines)


def head_of(pack: str, found: dict[str, Any]) -> str:
    """The title of a column: the model, its metric and what float has."""
    metric = f"{found.get('metric', '')} {number(found.get('after'))}".strip()
    return f"{TITLES.get(pack, pack)}<br>{metric}"


def write_between_markers(page: Path, name: str, text: str) -> None:
    """Replace what stands between the two markers of this name in ``page``."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        sys.exit(f"{page}: no {begin} with {end} behind it")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def summary(packs: list[str], schemes: list[str], cells: dict[str, dict[str, Any]]) -> str:
    """One row a scheme: geometric means of size and speed, the median SQNR, and on how many packs it ran."""
    lines = ["| scheme | size | speed | SQNR of the outputs | models |", "|---|---|---|---|---|"]
    for scheme in schemes:
        every = [cells.get(f"{p} | {scheme}", {"reason": "not run"}) for p in packs]
        found = [c for c in every if "reason" not in c]
        if not found:
            lines.append(f"| `{scheme}` | - | - | - | 0 of {len(packs)} |")
            continue
        size, speed = (math.exp(statistics.fmean(math.log(c[k]) for c in found)) for k in ("size", "speed"))
        db = statistics.median(c["sqnr_db"] for c in found)
        lines.append(f"| `{scheme}` | {size:.2f} | {speed:.2f}x | {db:.1f} dB | {len(found)} of {len(packs)} |")
    return "\n".join(lines)


def text_of(found: dict[str, Any], *, full: bool = True) -> str:
    """0.271, 0.8198, 36.1 dB, 1.31x; short: 0.27, 0.8198, 1.31x; or the reason."""
    if "reason" in found:
        return str(found["reason"]).removeprefix("error: ").replace("|", "/")
    size, speed = found["size"], f"{found['speed']:.2f}x"
    if found["metric"] == "SQNR":
        return f"{size:.{3 if full else 2}f}, {number(found['after'])} dB, {speed}"
    exact = f", {found['sqnr_db']:.1f} dB" if full and "sqnr_db" in found else ""
    return f"{size:.{3 if full else 2}f}, {number(found['after'])}{exact}, {speed}"


def number(value: float | None) -> str:
    """Four significant digits."""
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    main()
