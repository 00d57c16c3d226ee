"""``qconvert calibrate``, ``merge`` and ``quantize --ranges``, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from end_to_end.command import SAMPLES, Command, arrays_in, calib_of, eval_of, images, labels_of, model_of
from onnx import numpy_helper
from PIL import Image

SHARDS = 8


@pytest.mark.parametrize("sample", SAMPLES)
def test_eight_shards_make_the_same_model_as_one_run(sample: str, qconvert: Command, tmp_path: Path) -> None:
    model, calib = model_of(sample), calib_of(sample)
    direct, whole = tmp_path / "direct.onnx", tmp_path / "whole.npz"
    options = ["--recover", "none"]  # recovery looks at data, which ranges alone do not have
    assert qconvert("quantize", model, "--calib", calib, "-o", direct, "-q", *options).code == 0
    assert qconvert("calibrate", model, "--calib", calib, "-o", whole).code == 0
    shards = [tmp_path / f"{i}.npz" for i in range(1, SHARDS + 1)]
    for i, shard in enumerate(shards, start=1):
        done = qconvert("calibrate", model, "--calib", calib, "--shard", f"{i}/{SHARDS}", "-o", shard, "--threads", 1)
        assert done.code == 0, done.err
    merged = tmp_path / "merged.npz"
    assert qconvert("merge", *shards[::-1], "-o", merged).code == 0
    assert merged.read_bytes() == whole.read_bytes()
    again = tmp_path / "again.onnx"
    ran = qconvert("quantize", model, "--ranges", merged, "-o", again, *options)
    assert ran.code == 0, ran.err
    assert again.read_bytes() == direct.read_bytes()
    assert "random data" in " ".join(ran.out.split()), "no data at all must be said loudly"


def test_ranges_with_data_give_what_the_data_give(qconvert: Command, tmp_path: Path) -> None:
    model, calib = model_of("digits_cnn"), calib_of("digits_cnn")
    ranges, one, two = tmp_path / "r.npz", tmp_path / "one.onnx", tmp_path / "two.onnx"
    assert qconvert("calibrate", model, "--calib", calib, "-o", ranges).code == 0
    judged = ["--eval", eval_of("digits_cnn"), "--labels", labels_of("digits_cnn")]
    assert qconvert("quantize", model, "--calib", calib, "-o", one, *judged).code == 0
    ran = qconvert("quantize", model, "--calib", calib, "--ranges", ranges, "-o", two, "--json", *judged)
    assert one.read_bytes() == two.read_bytes()
    assert ran.report["calibration"]["source"] == str(ranges)


def test_the_same_numbers_in_any_form_give_the_same_file(qconvert: Command, tmp_path: Path) -> None:
    """Pixels 0..255 as .npz, .npy, .pb, .png, .csv, .jsonl and raw bytes: statistics that are equal to the byte."""
    pixels = np.round(images(24) / images(24).max() * 255).astype(np.uint8)  # [24, 1, 8, 8]
    values = pixels.astype(np.float32)
    for folder in ("npz", "npy", "png", *(f"pb/test_data_set_{i}" for i in range(24))):
        (tmp_path / folder).mkdir(parents=True)
    for i, value in enumerate(values):
        np.savez(tmp_path / "npz" / f"{i:02}.npz", image=value)
        np.save(tmp_path / "npy" / f"{i:02}.npy", value)
        Image.fromarray(pixels[i, 0]).save(tmp_path / "png" / f"{i:02}.png")
        tensor = numpy_helper.from_array(value[np.newaxis], "image")
        onnx.save_tensor(tensor, tmp_path / "pb" / f"test_data_set_{i}" / "input_0.pb")
    np.savez(tmp_path / "stacked.npz", image=values)
    (tmp_path / "rows.csv").write_text(
        "\n".join(",".join(repr(float(x)) for x in v.reshape(-1)) for v in values) + "\n", encoding="utf-8"
    )
    (tmp_path / "raw.bin").write_bytes(values.tobytes())
    sources = ["npz", "npy", "pb", "png", "stacked.npz", "rows.csv", "raw.bin:float32:1x8x8"]
    found = {}
    for i, source in enumerate(sources):
        out = tmp_path / f"ranges{i}.npz"
        extra = ["--preprocess", "raw"] if source == "png" else []
        ran = qconvert("calibrate", model_of("digits_cnn"), "--calib", f"{tmp_path}/{source}", "-o", out, *extra)
        assert ran.code == 0, f"{source}: {ran.err}"
        found[source] = out.read_bytes()
    assert len(set(found.values())) == 1, {k: hash(v) for k, v in found.items()}


def test_ranges_of_another_model_are_refused(qconvert: Command, tmp_path: Path) -> None:
    ranges, out = tmp_path / "r.npz", tmp_path / "out.onnx"
    qconvert("calibrate", model_of("digits_gru"), "--calib", calib_of("digits_gru"), "-o", ranges)
    ran = qconvert("quantize", model_of("digits_cnn"), "--ranges", ranges, "-o", out)
    assert ran.code == 2
    assert "another model: digits_gru.onnx" in ran.err
    assert not out.exists()


def test_the_method_of_the_ranges_is_used(qconvert: Command, tmp_path: Path) -> None:
    model, ranges = model_of("digits_cnn"), tmp_path / "r.npz"
    qconvert("calibrate", model, "--calib", calib_of("digits_cnn"), "-o", ranges, "--method", "minmax")
    ran = qconvert("quantize", model, "--ranges", ranges, "-o", tmp_path / "a.onnx", "--json")
    assert ran.report["calibration"]["method"] == "minmax"
    ran = qconvert("quantize", model, "--ranges", ranges, "--method", "mse", "-o", tmp_path / "b.onnx")
    assert ran.code == 2
    assert "lack statistics that mse can use" in ran.err


def test_dry_run_writes_nothing(qconvert: Command, tmp_path: Path) -> None:
    for command in ("calibrate", "quantize"):
        out = tmp_path / command
        ran = qconvert(command, model_of("digits_cnn"), "--calib", calib_of("digits_cnn"), "-o", out, "--dry-run")
        assert ran.code == 0
        assert "88 of" in ran.out
        assert "12 more held out" in ran.out
        assert "nothing was written" in ran.out
        assert not out.exists()


def test_bad_samples_are_passed_over_and_counted(qconvert: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i, image in enumerate(images(16)):
        np.savez(data / f"{i:02}.npz", image=image)
    (data / "05.npz").write_bytes(b"PK")
    arguments = ["quantize", model_of("digits_cnn"), "--calib", data, "-o", tmp_path / "out.onnx", "--json"]
    refused = qconvert(*arguments)
    assert refused.code == 2
    assert "05.npz" in refused.err
    assert "--skip-bad" in refused.err
    ran = qconvert(*arguments, "--skip-bad", 1)
    assert ran.code == 0, ran.err
    assert ["05.npz" in line for line in ran.report["calibration"]["skipped_samples"]] == [True]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shard", "9/8"], "i/n"),
        (["--shard", "x"], "i/n"),
        (["--shard", "90/95"], "shard 90 of 95 has no samples"),
        (["--method", "maxmin"], "maxmin"),
        (["--samples", "0"], "samples"),
    ],
)
def test_wrong_options(arguments: list[str], says: str, qconvert: Command, tmp_path: Path) -> None:
    out = tmp_path / "r.npz"
    ran = qconvert("calibrate", model_of("digits_cnn"), "--calib", calib_of("digits_cnn"), "-o", out, *arguments)
    assert ran.code == 2
    assert says in ran.err
    assert not out.exists()


def test_a_suspicious_set_is_pointed_out(qconvert: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "same.npz", image=np.repeat(arrays_in(calib_of("digits_cnn"))["image"][:1], 12, axis=0))
    ran = qconvert("calibrate", model_of("digits_cnn"), "--calib", tmp_path / "same.npz", "-o", tmp_path / "r.npz")
    assert ran.code == 0
    assert "warning: " in ran.err
    assert "equal" in ran.err or "same" in ran.err


def test_the_cache_is_used_and_never_stale(qconvert: Command, tmp_path: Path) -> None:
    data, cache = tmp_path / "calib.npz", tmp_path / "cache"
    np.savez(data, image=images(40))
    arguments = ["quantize", model_of("digits_cnn"), "--calib", data, "--cache", cache, "--recover", "none"]
    assert qconvert(*arguments, "-o", tmp_path / "one.onnx").code == 0
    (kept,) = cache.iterdir()
    kept_bytes = kept.read_bytes()
    assert qconvert(*arguments, "-o", tmp_path / "two.onnx").code == 0
    assert [p.read_bytes() for p in cache.iterdir()] == [kept_bytes]
    assert (tmp_path / "two.onnx").read_bytes() == (tmp_path / "one.onnx").read_bytes()
    np.savez(data, image=images(40) * 2)
    assert qconvert(*arguments, "-o", tmp_path / "three.onnx").code == 0
    assert len(list(cache.iterdir())) == 2
    kept.write_bytes(b"damaged")
    np.savez(data, image=images(40))
    assert qconvert(*arguments, "-o", tmp_path / "four.onnx").code == 0
    assert kept.read_bytes() == kept_bytes


def test_a_shard_counts_once(qconvert: Command, tmp_path: Path) -> None:
    shard, out = tmp_path / "r.npz", tmp_path / "all.npz"
    arguments = ["calibrate", model_of("digits_cnn"), "--calib", calib_of("digits_cnn"), "--samples", 4, "-o", shard]
    assert qconvert(*arguments).code == 0
    ran = qconvert("merge", shard, shard, "-o", out)
    assert ran.code == 2
    assert "holds the same statistics" in ran.err
    assert not out.exists()
