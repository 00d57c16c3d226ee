"""The only place that makes ONNX Runtime sessions."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from qconvert.errors import ModelError, QConvertError
from qconvert.graph.loops import sure_to_end
from qconvert.graph.patience import PATIENCE

Feed = Mapping[str, NDArray[np.generic]]
"""One run's inputs by name."""

_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "bool": "bool",
    "string": "str",
    **{f"{u}int{b}": f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IOSpec:
    """One input or output of a model.

    Attributes:
        name: its name.
        dtype: numpy-style type name, or ONNX Runtime's own words for what is not a tensor ("seq(tensor(float))").
        shape: sizes, names of symbolic dimensions, None where unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    @property
    def is_tensor(self) -> bool:
        """Whether it is a plain tensor that numpy can hold."""
        return self.dtype in _DTYPES.values()


def _spec(arg: ort.NodeArg) -> IOSpec:
    match = re.fullmatch(r"tensor\((\w+)\)", arg.type)
    dtype = _DTYPES.get(match[1], arg.type) if match else arg.type
    shape = tuple(d if isinstance(d, (int, str)) else None for d in arg.shape or ())
    return IOSpec(name=arg.name, dtype=dtype, shape=shape)


class Session:
    """A model loaded into ONNX Runtime's CPU provider.

    Attributes:
        inputs, outputs: the interface as ONNX Runtime sees it.
    """

    def __init__(
        self,
        raw: ort.InferenceSession,
        *,
        lean: bool = False,
        lent: Mapping[str, NDArray[np.generic]] | None = None,
        ends: bool = True,
        origin: Path | None = None,
    ) -> None:
        self._raw = raw
        self._ends = ends  # else its runs are watched
        self._name = str(origin or "the model")
        self._lent = lent  # what the session may read as long as it lives
        self._lean = lean
        self.inputs = tuple(_spec(a) for a in raw.get_inputs())
        self.outputs = tuple(_spec(a) for a in raw.get_outputs())

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[NDArray[np.generic]]:
        """Results for one feed, in the order of ``outputs`` (default: all, in the model's order).

        Only what the asked-for outputs need is computed.

        Raises:
            ModelError: ONNX Runtime could not run the model on this feed.
            GivenUp: the run did not come to an end.
        """
        options = self._run_options(outputs)
        try:
            with nullcontext() if self._ends or options is None else PATIENCE.over(options, self._name):
                return list(self._raw.run(outputs, dict(feed), options))
        except QConvertError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class but Exception
            raise ModelError(f"ONNX Runtime could not run the model: {_first_line(error)}") from error

    def run_on(self, values: Feed, outputs: Sequence[str] | None = None) -> list[NDArray[np.generic]]:
        """:meth:`run` on those of ``values`` that are inputs of the model."""
        return self.run({spec.name: values[spec.name] for spec in self.inputs if spec.name in values}, outputs)

    def _run_options(self, outputs: Sequence[str] | None) -> ort.RunOptions | None:
        """What is special about a run for ``outputs``; None for nothing."""
        part = outputs is not None and len(outputs) < len(self.outputs)
        if not part and not self._lean and self._ends:
            return None
        options = ort.RunOptions()
        options.only_execute_path_to_fetches = part
        if self._lean:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options

    def end_profiling(self) -> Path:
        """Stop profiling and return the JSON file."""
        return Path(self._raw.end_profiling())


def open_session(
    model: Path | bytes,
    *,
    folder: Path | None = None,
    lent: Mapping[str, NDArray[np.generic]] | None = None,
    threads: int = 0,
    optimize: bool = True,
    layouts: bool = True,
    int8: bool | None = None,
    lean: bool = False,
    integers: bool = True,
    optimized_path: Path | None = None,
    profile_prefix: Path | None = None,
    origin: Path | None = None,
) -> Session:
    """Load a model into ONNX Runtime's CPU provider.

    Args:
        model: a file, or a serialised ModelProto.
        folder: what the external data of a serialised model are relative to.
        lent: initializer of the main graph -> its values, where a serialised model has only a reference to them.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
        optimize: apply graph optimizations, or none.
        layouts: with them, those that change the layout of tensors for this processor.
        int8: fuse quantize-dequantize pairs of int8 activations wherever it fuses uint8; None: as ONNX Runtime does on
            this processor (yes on ARM, no on x86).
        lean: hold no memory between runs. A ResNet-50 whose activations are outputs, run in two threads and three
            parts, takes 453 MB at most instead of 552, in the same processor time.
        integers: turn quantize-dequantize pairs into integer kernels; without, they are computed as they stand, and
            ONNX Runtime does not quantize float weights of its own accord between them.
        optimized_path: where to save the graph as optimized.
        profile_prefix: record a profile, in files that begin so.
        origin: the file that a serialised model came from, for messages.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    levels = ort.GraphOptimizationLevel
    wanted = levels.ORT_ENABLE_ALL if layouts else levels.ORT_ENABLE_EXTENDED
    options.graph_optimization_level = wanted if optimize else levels.ORT_DISABLE_ALL
    options.enable_mem_pattern = not lean
    if int8 is not None:
        options.add_session_config_entry("session.qdqisint8allowed", str(int(int8)))
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    if lent:
        options.add_external_initializers(list(lent), [ort.OrtValue.ortvalue_from_numpy(a) for a in lent.values()])
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    source = model if isinstance(model, bytes) else str(model)
    try:
        raw = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot load the model: {_first_line(error)}",
            hint="check that the FP32 model itself runs in ONNX Runtime's CPU provider",
        ) from error
    return Session(raw, lean=lean, lent=lent, ends=_ends(model), origin=model if isinstance(model, Path) else origin)


# A node's operator as protobuf writes it: field 4 of NodeProto, and the length of the name.
_LOOPS = (b"\x22\x04Loop", b"\x22\x04Scan")
# A message beyond this is not read once more to see how often its loops run.
_READABLE = 1 << 26


def _ends(model: Path | bytes) -> bool:
    """Whether a run of the model is sure to end: it has no Loop, or says itself that there are few trips."""
    try:
        if isinstance(model, bytes):
            return not any(mark in model for mark in _LOOPS) or (
                len(model) <= _READABLE and sure_to_end(onnx.ModelProto.FromString(model))
            )
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = any(data.find(mark) >= 0 for mark in _LOOPS)
            return not found or (len(data) <= _READABLE and sure_to_end(onnx.ModelProto.FromString(data[:])))
    except (OSError, ValueError, DecodeError):
        return False


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:400]
