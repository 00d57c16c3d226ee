"""Samples that no file holds: a function of the user, and random numbers."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet, split
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

X = IOSpec(name="x", dtype="float32", shape=("n", 3))
Y = IOSpec(name="y", dtype="int64", shape=("n", "t"))
_MODULES = iter(range(1000))


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def function(code: str, *interface: IOSpec, name: str = "samples", skip_bad: int = 0) -> FeedSet:
    """The samples of ``code``, which lies in the current directory as a module of a new name."""
    module = f"calibration_{next(_MODULES)}"
    Path(f"{module}.py").write_text("import numpy as np\n" + textwrap.dedent(code))
    return opened(f"python:{module}:{name}", *interface, skip_bad=skip_bad)


def opened(text: str, *interface: IOSpec, seed: int = 0, skip_bad: int = 0) -> FeedSet:
    return open_data_set(DataSpec(sources=(text,), seed=seed, skip_bad=skip_bad), interface or (X,))


def refused(text: str, *interface: IOSpec) -> DataError:
    with pytest.raises(DataError) as caught:
        opened(text, *interface)
    assert caught.value.hint
    return caught.value


COUNTING = """
    def samples():
        for i in range(10):
            yield {"x": [i, i, i]}
"""


# ---------------------------------------------------------------- a function


def test_a_function_gives_its_samples_in_any_order() -> None:
    made = function(COUNTING)
    assert len(made) == 10
    assert [feed["x"].tolist() for feed in made] == [[[i] * 3] for i in range(10)]
    assert [feed["x"][0, 0] for feed in made.take([7, 2, 2, 9, 0])] == [7, 2, 2, 9, 0]
    assert made.source[3].origin.endswith(":samples[3]")
    kept, held = split(made)
    assert {float(f["x"][0, 0]) for f in (*kept, *held)} == set(range(10))


def test_reading_in_order_calls_the_function_twice_and_holds_one_sample() -> None:
    code = """
        calls, alive = [], set()

        class Tracked(np.ndarray):
            def __del__(self):
                alive.discard(id(self))

        def samples():
            calls.append(1)
            for i in range(50):
                array = np.full(3, i, np.float32).view(Tracked)
                alive.add(id(array))
                assert len(alive) <= 3, len(alive)
                yield {"x": array}
    """
    made = function(code)
    made.feed(0)
    list(made.take(range(1, 50)))
    module = sys.modules[made.source.name.split(":")[1]]
    assert len(module.calls) == 2


@pytest.mark.parametrize(
    "code",
    [
        "def samples():\n    return [{'x': np.ones(3)}] * 4",
        "def samples():\n    return ({'x': np.ones(3)} for _ in range(4))",
        "class Loader:\n    def __iter__(self):\n        return iter([np.ones(3)] * 4)\nsamples = Loader",
        "samples = lambda: [np.ones((1, 3)), [1, 1, 1], (1.0, 1, 1), np.ones(3, np.float64)]",
    ],
)
def test_forms_of_a_function(code: str) -> None:
    assert [feed["x"].tolist() for feed in function(code)] == [[[1, 1, 1]]] * 4


def test_a_buffer_may_be_used_again() -> None:
    code = """
        def samples():
            buffer = np.empty(3, np.float32)
            for i in range(3):
                buffer[:] = i
                yield {"x": buffer}
    """
    assert [feed["x"][0, 0] for feed in list(function(code))] == [0, 1, 2]


def test_several_inputs_and_extras() -> None:
    made = function("def samples():\n    yield {'x': [1, 2, 3], 'y': [4], 'label': 7}", X, Y)
    assert made.feed(0)["y"].tolist() == [[4]]
    assert "ignored: 'label'" in made.warnings[0]


def test_what_the_code_prints_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    list(function("print('importing')\ndef samples():\n    print('reading')\n    yield [1, 2, 3]"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "importing\nreading\n" in captured.err


def test_the_path_is_left_as_it_was() -> None:
    before = list(sys.path)
    list(function("import sys\nsys.path.append('/nowhere')\ndef samples():\n    yield [1, 2, 3]"))
    assert sys.path == [*before, "/nowhere"]
    sys.path.remove("/nowhere")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def samples():\n    raise RuntimeError('no disk')", ".py line 3: RuntimeError: no disk"),
        ("def samples():\n    yield [1, 2, 3]\n    raise KeyError('second')", "KeyError: 'second'"),
        ("def samples():\n    return 1 / 0", "ZeroDivisionError"),
        ("def samples():\n    raise SystemExit(3)", "SystemExit: 3"),
        ("def samples():\n    return None", "'NoneType' object is not iterable"),
        ("def samples(path):\n    yield [1, 2, 3]", "missing 1 required positional argument"),
        ("def samples():\n    yield [[1, 2], [3]]", "inhomogeneous"),
        ("def samples():\n    yield {'x': [1, 2]}", "expects [n, 3], came [2]"),
        ("def samples():\n    yield {'x': [object()] * 3}", "expects float32, came object"),
        ("def samples():\n    yield np.ones(3, np.uint8)", "expects float32, came uint8"),
        ("def samples():\n    yield {'y': 1, 'z': 2}", "no array for input 'x'"),
        ("def samples():\n    yield from ()", "holds no samples"),
        ("import no_such_module\ndef samples(): ...", "No module named 'no_such_module'"),
        ("def samples(:", "SyntaxError"),
        ("samples = 3", "has no function 'samples'"),
    ],
)
def test_code_that_fails_is_the_users_error(code: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        list(function(code))
    assert says in caught.value.message
    assert caught.value.message.startswith("python:calibration_")
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("n = []\ndef samples():\n    n.append(1)\n    yield [len(n)] * 3", "sample 0 has changed"),
        ("n = []\ndef samples():\n    n.append(1)\n    yield from [[1, 2, 3]] * (3 - len(n))", "it ended after 1"),
        ("s = iter([[1, 2, 3]] * 3)\ndef samples():\n    return s", "it ended after 0"),
    ],
)
def test_a_function_that_is_not_repeatable_is_refused(code: str, says: str) -> None:
    with pytest.raises(DataError, match="yields other samples when it is called again") as caught:
        list(function(code))
    assert says in caught.value.message
    assert "seed" in caught.value.hint


def test_a_bad_sample_can_be_passed_over() -> None:
    made = function("def samples():\n    yield from ([1, 2, 3], [1, 2], [4, 5, 6])", skip_bad=1)
    assert [number for number, _ in made.items()] == [0, 2]
    assert ":samples[1]" in made.skipped[0]


def test_names_of_functions() -> None:
    assert "is not python:MODULE:FUNCTION" in refused("python:calibration").message
    error = refused("python:no_such_module:samples")
    assert "No module named 'no_such_module'" in error.message
    assert str(Path.cwd()) in error.hint
    with pytest.raises(DataError) as caught:
        function(COUNTING, name="sample")
    assert "it has: samples" in caught.value.hint


def test_the_listing_is_of_the_content() -> None:
    same = [function(COUNTING).listing(), function(COUNTING).listing()]
    assert same[0] == same[1]
    assert function(COUNTING.replace("range(10)", "range(9)")).listing() == same[0][:9]
    assert function(COUNTING.replace("[i, i, i]", "[i, i, 2 * i]")).listing()[1] != same[0][1]


# ---------------------------------------------------------------- random


def test_random_data_follow_the_signature_and_shout() -> None:
    interface = (
        X,
        IOSpec(name="image", dtype="float16", shape=(2, 3, "h", None)),
        IOSpec(name="ids", dtype="int64", shape=("batch", "length")),
        IOSpec(name="pixels", dtype="uint8", shape=("n", 8, 8)),
        IOSpec(name="mask", dtype="bool", shape=("n", 4)),
        IOSpec(name="t", dtype="float64", shape=()),
    )
    made = opened("random:20", *interface)
    assert len(made) == 20
    assert {n: a.shape for n, a in made.feed(0).items()} == {
        "x": (1, 3),
        "image": (2, 3, 32, 32),
        "ids": (1, 32),
        "pixels": (1, 8, 8),
        "mask": (1, 4),
        "t": (),
    }
    ids = np.concatenate([feed["ids"] for feed in made])
    assert set(ids.ravel().tolist()) == {0, 1}
    assert np.concatenate([feed["pixels"] for feed in made]).max() > 200
    assert made.warnings == ("random data: ranges and accuracy mean nothing; for shape and speed checks only",)


def test_random_data_are_seeded_and_differ_from_sample_to_sample() -> None:
    one, same, other = opened("random:3"), opened("random:3"), opened("random:3", seed=1)
    assert [f["x"].tolist() for f in one] == [f["x"].tolist() for f in same]
    assert len({f["x"].tobytes() for f in (*one, *other)}) == 6
    assert one.feed(2)["x"].tobytes() == opened("random:9").feed(2)["x"].tobytes()
    assert one.listing() == same.listing() != other.listing()


@pytest.mark.parametrize("text", ["random:", "random:0", "random:-1", "random:x", "random:1.5", "random:" + "9" * 30])
def test_the_number_of_random_samples(text: str) -> None:
    assert "is no number of samples" in refused(text).message


def test_what_cannot_be_random() -> None:
    assert "no random values" in refused("random:3", IOSpec(name="s", dtype="str", shape=("n",))).message
    assert "too large" in refused("random:3", IOSpec(name="x", dtype="float32", shape=(1 << 20, 1 << 20))).message


def test_a_file_called_like_a_scheme_wins() -> None:
    Path("random:3").mkdir()
    np.save("random:3/a.npy", np.zeros(3, np.float32))
    assert opened("random:3").warnings == ()
