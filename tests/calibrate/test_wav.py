"""WAV: every width of integers, mixing, lengths, rates, and damaged files."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

RATE = 16000
FREE = IOSpec(name="wave", dtype="float32", shape=("n", "t"))
FIXED = IOSpec(name="wave", dtype="float32", shape=("n", 1, 8))


def write(file: Path, data: bytes, *, width: int = 2, channels: int = 1, rate: int = RATE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as stream:
        stream.setnchannels(channels)
        stream.setsampwidth(width)
        stream.setframerate(rate)
        stream.writeframes(data)
    return file


def shorts(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


def opened(folder: Path, interface: IOSpec = FREE, rate: int | None = RATE, skip_bad: int = 0) -> FeedSet:
    text = str(folder) if rate is None else f"{folder}:rate={rate}"
    return open_data_set(DataSpec(sources=(text,), skip_bad=skip_bad), (interface,))


def refused(folder: Path, interface: IOSpec = FREE, rate: int | None = RATE) -> DataError:
    with pytest.raises(DataError) as caught:
        opened(folder, interface, rate)
    assert caught.value.hint
    return caught.value


@given(width=st.sampled_from([1, 2, 3, 4]), data=st.data())
def test_integers_become_fractions_of_full_scale(
    tmp_path_factory: pytest.TempPathFactory, width: int, data: st.DataObject
) -> None:
    full = 1 << (8 * width - 1)
    values = data.draw(st.lists(st.integers(-full, full - 1), min_size=1, max_size=9))
    signed = b"".join(v.to_bytes(width, "little", signed=True) for v in values)
    stored = bytes(v + 128 for v in values) if width == 1 else signed
    folder = tmp_path_factory.mktemp("wav")
    write(folder / "a.wav", stored, width=width)
    made = opened(folder).feed(0)["wave"]
    assert made.dtype == np.float32
    assert made.min() >= -1
    assert made.max() < 1
    below_one = np.nextafter(np.float32(1), np.float32(0))
    assert made[0].tolist() == [float(min(np.float32(v / full), below_one)) for v in values]


def test_channels_are_averaged(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", shorts(100, 300, -32768, 32767), channels=2)
    assert opened(tmp_path).feed(0)["wave"].tolist() == [[200 / 32768, np.float32(-0.5 / 32768)]]


@pytest.mark.parametrize("frames", [0, 5, 8, 11])
@pytest.mark.parametrize("shape", [("n", 1, 8), ("n", 8, 1), ("n", 8), (8,)])
def test_a_fixed_length_is_cut_or_filled(tmp_path: Path, shape: tuple[int | str, ...], frames: int) -> None:
    write(tmp_path / "a.wav", shorts(*range(1, frames + 1)))
    made = opened(tmp_path, IOSpec(name="wave", dtype="float32", shape=shape)).feed(0)["wave"]
    assert made.shape == tuple(1 if size == "n" else size for size in shape)
    kept = list(range(1, frames + 1))[:8]
    assert (made.ravel() * 32768).tolist() == kept + [0] * (8 - len(kept))


def test_a_free_length_is_the_files(tmp_path: Path) -> None:
    write(tmp_path / "1.wav", shorts(*range(5)))
    write(tmp_path / "2.WAV", shorts(*range(7)))
    assert [feed["wave"].shape for feed in opened(tmp_path)] == [(1, 5), (1, 7)]
    write(tmp_path / "3.wav", b"")
    with pytest.raises(DataError, match=r"3\.wav holds no sound"):
        list(opened(tmp_path))


def test_rates_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", shorts(1, 2), rate=16000)
    write(tmp_path / "b.wav", shorts(1, 2), rate=44100)
    with pytest.raises(DataError, match=r"b\.wav has a sampling rate of 44100 Hz, wanted are 16000 Hz"):
        list(opened(tmp_path))
    assert "a.wav has a sampling rate of 16000 Hz" in refused(tmp_path, rate=44100).message
    made = opened(tmp_path, rate=None)
    assert "16000 Hz, is taken to be the model's" in made.warnings[0]
    with pytest.raises(DataError, match=r"b\.wav"):
        list(made)


@pytest.mark.parametrize("word", ["16000", "rate=", "rate=16k", "rat=16000", "rate=-1"])
def test_what_may_follow_the_folder(tmp_path: Path, word: str) -> None:
    write(tmp_path / "a.wav", shorts(1, 2))
    with pytest.raises(DataError, match="is not rate=HZ") as caught:
        open_data_set(DataSpec(sources=(f"{tmp_path}:{word}",)), (FREE,))
    assert ":rate=16000" in caught.value.hint


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for label in ("no", "yes"):
        write(tmp_path / label / "a.wav", shorts(1, 2))
    made = opened(tmp_path)
    assert made.labels is not None
    assert made.labels.tolist() == [0, 1]
    assert made.label_names == ("no", "yes")


def test_a_fixed_batch_takes_several_files(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.wav", shorts(i))
    made = opened(tmp_path, IOSpec(name="wave", dtype="float32", shape=(2, 3)))
    assert [(f["wave"] * 32768).tolist() for f in made] == [[[0] * 3, [1, 0, 0]], [[2, 0, 0], [3, 0, 0]]]
    free = opened(tmp_path, IOSpec(name="wave", dtype="float32", shape=(2, "t")))
    assert free.feed(1)["wave"].shape == (2, 1)
    write(tmp_path / "1.wav", shorts(1, 2))
    with pytest.raises(DataError, match="differ in shape"):
        opened(tmp_path, IOSpec(name="wave", dtype="float32", shape=(2, "t")))


@pytest.mark.parametrize(
    ("dtype", "shape"), [("int16", ("n", 8)), ("float32", ("n", 3, 8)), ("float32", ("n", 3, 8, 8)), ("float32", ())]
)
def test_inputs_that_take_no_waveform(tmp_path: Path, dtype: str, shape: tuple[int | str, ...]) -> None:
    write(tmp_path / "a.wav", shorts(1, 2))
    assert "takes no waveform" in refused(tmp_path, IOSpec(name="wave", dtype=dtype, shape=shape)).message


def test_truncated_at_every_length(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", shorts(*range(20)))
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        for rate in (RATE, None):
            assert "a.wav" in refused(tmp_path, rate=rate).message


def test_a_header_that_promises_gigabytes_allocates_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", shorts(*range(20)))
    content = bytearray(file.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    file.write_bytes(content)
    assert "truncated" in refused(tmp_path).message


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", shorts(1, 2), width=2)
    content = bytearray(file.read_bytes())
    content[20:22] = struct.pack("<H", 3)  # IEEE float
    file.write_bytes(content)
    error = refused(tmp_path)
    assert "a.wav is no sound .wav file" in error.message
    assert "PCM" in error.hint


def test_a_bad_file_can_be_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "0.wav", shorts(1, 2), rate=8000)
    write(tmp_path / "1.wav", shorts(1, 2))
    made = opened(tmp_path, skip_bad=1)
    assert made.feed(0)["wave"].shape == (1, 2)
    assert len(made.skipped) == 1
    assert "0.wav" in made.skipped[0]
