"""CSV, TSV and JSON lines: exact numbers, columns and headers, shapes, and files that are absurd."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet
from qconvert.calibrate.sources._lines import LONGEST, Lines
from qconvert.calibrate.sources._numbers import numbers
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

WHOLE = ("int8", "uint8", "int32", "int64", "uint64")


def spec(*shape: int | str | None, dtype: str = "float32", name: str = "x") -> IOSpec:
    return IOSpec(name=name, dtype=dtype, shape=shape)


X = spec("n", 3)
IDS = spec("n", 4, dtype="int64", name="ids")
SCALAR = spec(name="t")


def opened(file: Path, *interface: IOSpec, skip_bad: int = 0) -> FeedSet:
    return open_data_set(DataSpec(sources=(str(file),), skip_bad=skip_bad), interface or (X,))


def text(folder: Path, content: str | bytes, *interface: IOSpec, suffix: str = ".csv", skip_bad: int = 0) -> FeedSet:
    file = folder / f"data{suffix}"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return opened(file, *interface, skip_bad=skip_bad)


def values(made: FeedSet, name: str = "x") -> list[object]:
    return [feed[name].tolist() for feed in made]


def refused(folder: Path, content: str | bytes, *interface: IOSpec, suffix: str = ".csv") -> DataError:
    with pytest.raises(DataError) as caught:
        list(text(folder, content, *interface, suffix=suffix))
    assert caught.value.hint
    assert f"data{suffix}" in caught.value.message
    return caught.value


# ---------------------------------------------------------------- numbers

floats = st.floats(width=32, allow_nan=False)


@given(st.lists(floats, min_size=1))
def test_the_shortest_text_of_a_float32_reads_back(given_: list[float]) -> None:
    wanted = np.array(given_, np.float32)
    for texts in ([str(v) for v in wanted], [f"{v:.9g}" for v in wanted], [repr(float(v)) for v in wanted]):
        assert numbers(texts, "float32", "here").tobytes() == wanted.tobytes()


@given(base=st.integers(2**23, 2**24 - 2), exponent=st.integers(-100, 60), nudge=st.integers(-2, 2))
@example(base=8388609, exponent=0, nudge=1)
def test_a_text_near_the_middle_of_two_float32_is_rounded_once(base: int, exponent: int, nudge: int) -> None:
    """float() alone would round 8388609.5000000000001 to the even neighbour, which is below it."""
    middle = (Fraction(base) + Fraction(1, 2)) * Fraction(2) ** exponent
    scale = 10**90
    digits = int(middle * scale * 10**40) + nudge
    low, high = (float(Fraction(b) * Fraction(2) ** exponent) for b in (base, base + 1))
    exact = Fraction(f"{digits}e-130")
    expected = low if exact < middle else high if exact > middle else (low if base % 2 == 0 else high)
    assert numbers([f"{digits}e-130"], "float32", "here")[0] == np.float32(expected)


@given(st.sampled_from(WHOLE).flatmap(lambda d: st.tuples(st.just(d), st.integers(*limits(d)))))
def test_integers_are_exact(case: tuple[str, int]) -> None:
    dtype, value = case
    assert numbers([str(value)], dtype, "here").tolist() == [value]


def limits(dtype: str) -> tuple[int, int]:
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


@pytest.mark.parametrize(
    ("word", "dtype", "says"),
    [
        ("", "float32", "value 2 is empty, not a number"),
        ("abc", "float32", "value 2 is 'abc', not a number"),
        ("1_000", "float32", "'1_000'"),
        ("1_000", "int64", "'1_000'"),
        ("1.5", "int64", "'1.5', not an integer"),
        ("nan", "int64", "'nan', not an integer"),
        ("1e30", "int64", "not an integer"),
        ("300", "uint8", "'300' does not fit uint8"),
        ("-1", "uint8", "'-1' does not fit uint8"),
        ("2", "bool", "not 0, 1, true or false"),
        ("9" * 5000, "int64", "not an integer"),
    ],
)
def test_what_is_no_number(word: str, dtype: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        numbers(["1", word], dtype, "here")
    assert caught.value.message.startswith("here: ")
    assert says in caught.value.message


def test_spreadsheets_write_integers_with_a_point() -> None:
    assert numbers(["3.0", "-2"], "int64", "here").tolist() == [3, -2]
    assert numbers(["True", "0"], "bool", "here").tolist() == [True, False]


# ---------------------------------------------------------------- CSV


def test_columns_in_order(tmp_path: Path) -> None:
    made = text(tmp_path, "1,2,3\n4,5,6\n")
    assert values(made) == [[[1, 2, 3]], [[4, 5, 6]]]
    assert made.warnings == ()
    assert made.source[1].origin.endswith("data.csv, line 2")


@pytest.mark.parametrize(
    "content",
    [
        "a,b,c\n1,2,3\n4,5,6\n",
        "a,b,c\r\n1,2,3\r\n4,5,6",
        '"a","b","c"\n"1","2","3"\n4,5,6\n',
        "\ufeffa,b,c\n1,2,3\n4,5,6\n",
        "\n\na,b,c\n\n1,2,3\n   \n4,5,6\n\n\n",
        "# a,b,c\n1,2,3\n4,5,6\n",
        " a , b , c \n 1 , 2 , 3 \n4,5,6\n",
        "x,y,z\n1,2,3\n4,5,6\n",  # features, one of which is called like the input
        "x[0],x[1],x[2]\n1,2,3\n4,5,6\n",
        "x.2,x.0,x.1\n3,1,2\n6,4,5\n",
        "a;b;c\n1;2;3\n4;5;6\n",
    ],
)
def test_headers(tmp_path: Path, content: str) -> None:
    assert values(text(tmp_path, content)) == [[[1, 2, 3]], [[4, 5, 6]]]


def test_tabs(tmp_path: Path) -> None:
    assert values(text(tmp_path, "a\tb\tc\n1\t2\t3\n", suffix=".tsv")) == [[[1, 2, 3]]]


def test_the_header_of_a_table_without_names_is_no_sample(tmp_path: Path) -> None:
    made = text(tmp_path, "0,1,2\n7,8,9\n")
    assert values(made) == [[[7, 8, 9]]]
    assert "is taken for a header" in made.warnings[0]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (("n", 2, 3), (1, 2, 3)),
        (("n", "t"), (1, 6)),
        (("n", 3, "t"), (1, 3, 2)),
        ((1, 6), (1, 6)),
        ((6, 1), (6, 1)),  # one row is the whole batch
        ((), (6,)),
    ],
)
def test_features_are_reshaped_to_what_the_input_fixes(
    tmp_path: Path, shape: tuple[int | str, ...], expected: tuple[int, ...]
) -> None:
    array = text(tmp_path, "1,2,3,4,5,6\n", spec(*shape)).feed(0)["x"]
    assert array.shape == expected
    assert array.ravel().tolist() == [1, 2, 3, 4, 5, 6]


def test_a_fixed_batch_takes_several_rows(tmp_path: Path) -> None:
    made = text(tmp_path, "".join(f"{i},{i},{i}\n" for i in range(5)), spec(2, 3))
    assert values(made) == [[[0] * 3, [1] * 3], [[2] * 3, [3] * 3]]
    assert "the last 1 of 5 rows" in made.warnings[0]


def test_columns_named_after_several_inputs(tmp_path: Path) -> None:
    content = "id,ids[0],ids[1],ids[2],ids[3],t\na,1,2,3,4,0.5\nb,5,6,7,8,-1e-3\n"
    made = text(tmp_path, content, IDS, SCALAR)
    assert values(made, "ids") == [[[1, 2, 3, 4]], [[5, 6, 7, 8]]]
    assert [feed["t"] for feed in made] == [np.float32(0.5), np.float32(-1e-3)]
    assert made.feed(0)["t"].shape == ()
    assert "ignored: 'id'" in made.warnings[0]


def test_names_with_brackets_and_dots(tmp_path: Path) -> None:
    odd = (spec("n", name="input.1"), spec("n", 2, name="in[0]"))
    made = text(tmp_path, "input.1,in[0][0],in[0].1\n1,2,3\n", *odd)
    assert made.feed(0)["input.1"].tolist() == [1]
    assert made.feed(0)["in[0]"].tolist() == [[2, 3]]


def test_text_for_a_model_that_takes_text(tmp_path: Path) -> None:
    made = text(tmp_path, 'sentence\n"good, very good"\n1\n', spec("n", dtype="str", name="sentence"))
    assert values(made, "sentence") == [["good, very good"], ["1"]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1,2\n", "expects [n, 3], came [2]"),
        ("1,2,3,4,5,6\n", "expects [n, 3], came [6]"),
        ("1,2,3\n4,5\n", "line 2 has 2 values, the first line has 3"),
        ("a,b,c\n4,5\n", "line 2 has 2 values, the header has 3"),
        ("1,2,3\n\n4,x,5\n", "line 3: input 'x': value 2 is 'x'"),
        ("1,2,abc\n", "column 3 is 'abc', the others hold numbers"),
        (",0,1,2\n0,1,2,3\n", "column 1 is empty"),
        ("x[0],x[2],x[3]\n1,2,3\n", "are numbered 0, 2, 3"),
        ("x[0],x[0],x[1]\n1,2,3\n", "are numbered 0, 0, 1"),
        ("1,2,nan\n", "1 NaN or Inf"),
        ("1,2,1e39\n", "1 NaN or Inf"),
        ("", "holds no samples"),
        ("\n \n", "holds no samples"),
        ("a,b,c\n", "holds no samples"),
        ('"1,2,3\n', "no row of a table"),
        (b"\xff\xfe1\x00,\x002\x00", "not UTF-8"),
        (b"1,2,\xe9\n", "not UTF-8"),
        (b"\x00\x01\x02\n", "data.csv"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, content: str | bytes, says: str) -> None:
    assert says in refused(tmp_path, content).message


def test_tables_for_several_inputs(tmp_path: Path) -> None:
    assert "columns can feed one input only" in refused(tmp_path, "1,2,3,4,5\n", IDS, SCALAR).message
    assert "no array for input 't'" in refused(tmp_path, "ids[0],ids[1],ids[2],ids[3]\n1,2,3,4\n", IDS, SCALAR).message


def test_a_bad_row_is_one_bad_sample(tmp_path: Path) -> None:
    made = text(tmp_path, "1,2,3\n4,oops,6\n7,8,9\n", skip_bad=1)
    assert [number for number, _ in made.items()] == [0, 2]
    assert "line 2" in made.skipped[0]


# ---------------------------------------------------------------- JSON lines


def test_objects_and_lists(tmp_path: Path) -> None:
    assert values(text(tmp_path, '{"x": [1, 2.5, 3]}\n\n{"x": [[4, 5, 6]]}\n', suffix=".jsonl")) == [
        [[1, 2.5, 3]],
        [[4, 5, 6]],
    ]
    assert values(text(tmp_path, "[1, 2, 3]\r\n[-0.0, 1e-45, 3]", suffix=".ndjson"))[1][0][1] > 0  # type: ignore[index]


def test_several_inputs_and_what_belongs_to_none(tmp_path: Path) -> None:
    line = '{"text": "hello", "ids": [9007199254740993, 2, 3, 4], "t": 0.1, "meta": {"a": [1, [2]]}}\n'
    made = text(tmp_path, line, IDS, SCALAR, suffix=".jsonl")
    assert made.feed(0)["ids"].tolist() == [[9007199254740993, 2, 3, 4]]
    assert made.feed(0)["t"] == np.float32(0.1)
    assert "'text', 'meta'" in made.warnings[0]


def test_lines_may_differ_in_length(tmp_path: Path) -> None:
    made = text(tmp_path, "[[1, 2]]\n[[1, 2, 3]]\n[1]\n", spec("n", "t", dtype="int64"), suffix=".jsonl")
    assert [feed["x"].shape for feed in made] == [(1, 2), (1, 3), (1, 1)]


def test_a_fixed_batch_of_lines(tmp_path: Path) -> None:
    rows = text(tmp_path, "[1,2,3]\n[4,5,6]\n[7,8,9]\n", spec(2, 3), suffix=".jsonl")
    assert values(rows) == [[[1, 2, 3], [4, 5, 6]]]
    whole = text(tmp_path, "[[1,2,3],[4,5,6]]\n", spec(2, 3), suffix=".jsonl")
    assert values(whole) == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1, 2\n", "line 1 is not JSON"),
        ("[1, 2, 3]\n{]\n", "line 2 is not JSON"),
        ("[1, null, 3]\n", "came null"),
        ('[1, "2", 3]\n', "came a str"),
        ("[1, true, 3]\n", "came a bool"),
        ('[1, {"a": 1}, 3]\n', "came a dict"),
        ("[[1, 2, 3], [4]]\n", "the lists of axis 1 differ in length"),
        ("[[1, 2, 3], 4]\n", "the lists of axis 1 differ in length"),
        ("[1, [2], 3]\n", "came a list"),
        ("[1, 2, NaN]\n", "1 NaN or Inf"),
        ("[1, 2]\n", "expects [n, 3], came [2]"),
        ('{"a": [1], "b": [1]}\n', "no array for input 'x'"),
        ('{"x": "abc"}\n', "came a str"),
        ("", "holds no samples"),
        (b"\xff\xfe[\x001\x00]\x00", "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "1" + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 40 + "1" + "]" * 40, "nested too deeply"),
        ("[]\n", "expects [n, 3], came [0]"),
    ],
)
def test_lines_that_do_not_fit(tmp_path: Path, content: str | bytes, says: str) -> None:
    assert says in refused(tmp_path, content, suffix=".jsonl").message


def test_a_list_cannot_feed_several_inputs(tmp_path: Path) -> None:
    error = refused(tmp_path, "[1, 2, 3]\n", IDS, SCALAR, suffix=".jsonl")
    assert "line 1 is no object" in error.message


nested = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(nested)
def test_any_json_is_a_sample_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = tmp_path_factory.mktemp("json")
    try:
        made = text(folder, json.dumps(value) + "\n", spec("n", "m"), suffix=".jsonl")
    except DataError as error:
        assert "data.jsonl" in error.message
        return
    assert made.feed(0)["x"].dtype == np.float32


# ---------------------------------------------------------------- files as lines


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"), max_size=5), max_size=6))
def test_lines_are_those_that_python_sees(tmp_path_factory: pytest.TempPathFactory, given_: list[str]) -> None:
    file = tmp_path_factory.mktemp("lines") / "a.csv"
    file.write_bytes("\n".join(given_).encode())
    lines = Lines(file)
    expected = [(n, line) for n, line in enumerate(given_, 1) if line.encode().strip(b" \t\r\n")]
    assert [(lines.number(i), lines[i]) for i in range(len(lines))] == expected


def test_a_line_of_a_gigabyte_is_refused_at_once_and_not_held(tmp_path: Path) -> None:
    for suffix in (".csv", ".jsonl"):
        file = tmp_path / f"long{suffix}"
        with file.open("wb") as stream:
            stream.write(b"1,2,3\n")
            stream.truncate(1 << 30)
        tracemalloc.start()
        began = time.perf_counter()
        with pytest.raises(DataError, match=r"line 2 is longer than 32 MiB"):
            opened(file)
        assert time.perf_counter() - began < 5
        assert tracemalloc.get_traced_memory()[1] < LONGEST // 2
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_truncated_tables_are_read_up_to_the_end_or_refused(tmp_path: Path, suffix: str) -> None:
    rows: Mapping[str, bytes] = {
        ".csv": b"a,b,c\n1.5,2.5,3.5\n-1.5,2e3,3.5\n",
        ".tsv": b"a\tb\tc\n1.5\t2.5\t3.5\n-1.5\t2e3\t3.5\n",
        ".jsonl": b'{"x": [1.5, 2.5, 3.5]}\n{"x": [-1.5, 2e3, 3.5]}\n',
    }
    whole = rows[suffix]
    for length in range(len(whole)):
        try:
            found = values(text(tmp_path, whole[:length], suffix=suffix))
        except DataError as error:
            assert f"data{suffix}" in error.message
            continue
        assert found[0] == [[1.5, 2.5, 3.5]] or len(found) == 1
