"""Which command lines read which file of ``seeds``."""

from __future__ import annotations

from collections.abc import Mapping

OUT = "out.onnx"
_MODEL = ("--calib", "data.npz", "-o", OUT, "--placement", "static", "--effort", "fast")

# a seed's name -> command lines that read it; names ending in .onnx and the like lie in the folder that they run in
LINES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "model.onnx": (
        ("quantize", "model.onnx", *_MODEL),
        ("inspect", "model.onnx"),
        ("calibrate", "model.onnx", "--calib", "data.npz", "-o", OUT),
        ("evaluate", "model.onnx", "--data", "data.npz"),
        ("check", "model.onnx"),
        ("quantize", "model.onnx", "--scheme", "w8", "--no-measure", "-o", OUT),
        ("quantize", "model.onnx", "--scheme", "dynamic", "-o", OUT),
        ("convert", "model.onnx", "--to", "fp16", "-o", OUT),
        ("bench", "model.onnx", "--rounds", "3"),
    ),
    "qdq.onnx": (
        ("convert", "qdq.onnx", "--to", "float", "--data", "data.npz", "-o", OUT),
        ("convert", "qdq.onnx", "--to", "qoperator", "--data", "data.npz", "-o", OUT),
        ("check", "qdq.onnx"),
        ("check", "qdq.onnx", "--isa", "avx2", "--data", "data.npz"),
        ("compare", "model.onnx", "qdq.onnx", "--data", "data.npz"),
        ("inspect", "qdq.onnx"),
    ),
    "body.onnx": (
        ("inspect", "body.onnx"),
        ("quantize", "body.onnx", *_MODEL),
        ("evaluate", "body.onnx", "--data", "data.npz"),
    ),
    "data.npz": (
        ("quantize", "model.onnx", *_MODEL),
        ("evaluate", "model.onnx", "--data", "data.npz"),
        ("compare", "model.onnx", "model.onnx", "--data", "data.npz", "--no-tensors"),
    ),
    "data.npy": (
        ("calibrate", "model.onnx", "--calib", "data.npy", "-o", OUT),
        ("evaluate", "model.onnx", "--data", "data.npy"),
    ),
    "labels.npy": (("evaluate", "model.onnx", "--data", "data.npy", "--labels", "labels.npy"),),
    "pb/test_data_set_1/input_0.pb": (("calibrate", "model.onnx", "--calib", "pb", "-o", OUT),),
    "data.csv": (("calibrate", "rows.onnx", "--calib", "data.csv", "-o", OUT),),
    "data.jsonl": (("calibrate", "rows.onnx", "--calib", "data.jsonl", "-o", OUT),),
    "data.safetensors": (("calibrate", "model.onnx", "--calib", "data.safetensors", "-o", OUT),),
    "png/1.png": (("calibrate", "pixels.onnx", "--calib", "png", "-o", OUT),),
    "wav/1.wav": (("calibrate", "sound.onnx", "--calib", "wav", "-o", OUT),),
    "ranges.npz": (
        ("merge", "ranges.npz", "other.npz", "-o", OUT),
        ("quantize", "model.onnx", "--ranges", "ranges.npz", "-o", OUT, "--placement", "static"),
    ),
    "recipe.yaml": (("inspect", "model.onnx", "--recipe", "recipe.yaml"),),
    "pre.yaml": (("calibrate", "pixels.onnx", "--calib", "png", "--preprocess", "pre.yaml", "-o", OUT),),
}
