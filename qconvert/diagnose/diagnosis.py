"""All checks on one model: the stage behind ``qconvert check``.

path -> graph as stored, graph as run, times of its nodes, emulated saturation -> checks -> findings, worst first
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qconvert.calibrate.feeds import feeds
from qconvert.calibrate.source import open_source
from qconvert.diagnose.emulation import Damage, saturation_damage
from qconvert.diagnose.finding import CHECKS, Finding, Severity, Subject
from qconvert.diagnose.isa import Isa, this_machine
from qconvert.errors import ModelError
from qconvert.evaluate.kernel_times import kernel_times
from qconvert.evaluate.made_inputs import USUAL_SIZES, data_feeds, make_feed
from qconvert.evaluate.shown import Shown
from qconvert.graph.build_view import view_of
from qconvert.graph.census import Census, take_census
from qconvert.graph.model import Model, load
from qconvert.graph.optimized import named, optimized_model, origin
from qconvert.graph.quantized import quantized_ops
from qconvert.graph.session import Feed, open_session
from qconvert.graph.size import file_bytes, size_by_kind
from qconvert.progress import Progress

_ORDER = list(Severity)
# Saturation is emulated in numpy, which takes some seconds a sample for a network of a billion products.
_MOST_SAMPLES = 16
# Part of the time that no measurement would show if it were saved.
_TRIFLE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis(Shown):
    """What is known of a model's health.

    Attributes:
        path, bytes: the file, external data included.
        isa: the instructions that it was examined for.
        quantized: whether it is quantized at all.
        census: what ONNX Runtime makes of it.
        milliseconds: of all its kernels together, one thread; 0 when it could not be timed.
        findings: worst first.
        notes: what could not be examined.
    """

    path: str
    bytes: int
    isa: Isa
    quantized: bool
    census: Census
    milliseconds: float
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    def worse_than(self, limit: Severity) -> tuple[Finding, ...]:
        """The findings that are as bad as ``limit``, or worse."""
        return tuple(f for f in self.findings if _ORDER.index(f.severity) <= _ORDER.index(limit))


def diagnose(
    path: Path, *, isa: Isa | None = None, data: Path | None = None, progress: Progress | None = None
) -> Diagnosis:
    """Examine the model at ``path``.

    Args:
        path: any ONNX model.
        isa: the processor that it is meant for; None takes this machine's.
        data: samples to run; without, inputs are made for the times, and saturation is not measured.
        progress: told of long stages.

    Raises:
        ModelError: the file cannot be read as a model, or ONNX Runtime refuses it.
        DataError: the samples do not fit it.
    """
    model = load(path)
    isa = isa or this_machine()
    total = file_bytes(path, model)
    constants = sum(n for kind, n in size_by_kind(model, total).items() if kind != "graph")
    already = quantized_ops(model)
    try:
        run = view_of(optimized_model(path))
        census = take_census(model, ())
    except ModelError as error:
        raise ModelError(
            f"{path}: {error.message}",
            hint="only what ONNX Runtime loads can be examined; `qconvert inspect` shows what is in the file",
        ) from error
    samples, notes = _samples(path, data), list(_unseen(model))
    times = _times(path, samples)
    if not times:
        notes.append("no inputs could be made for the model, so nothing was timed; --data gives it real ones")
    damage = _damage(path, isa, samples, progress) if already else None
    subject = Subject(
        path=path,
        quantized_ops=already,
        stored=view_of(named(model)),
        run=run,
        isa=isa,
        times=times,
        constant_bytes=constants,
        damage=damage,
    )
    checks = [check for check in CHECKS if already or check.float_models]
    found = [_told(finding) for check in checks for finding in check.run(subject)]
    found.sort(key=lambda f: (_ORDER.index(f.severity), -f.share, -f.bytes, f.check))
    return Diagnosis(
        path=str(path),
        bytes=total,
        isa=isa,
        quantized=bool(already),
        census=census,
        milliseconds=sum(times.values()),
        findings=tuple(found),
        notes=tuple(notes),
    )


def _told(finding: Finding) -> Finding:
    """``finding`` with the names that the user knows; a note where the measured time is next to nothing."""
    trifle = 0.0 < finding.share < _TRIFLE and finding.severity is Severity.WARNING
    nodes = tuple(map(origin, finding.nodes))
    return replace(finding, nodes=nodes, severity=Severity.NOTE if trifle else finding.severity)


def _unseen(model: Model) -> list[str]:
    """What the checks do not look into."""
    view = view_of(named(model))
    bodies = sorted({n.op_type for n in view.nodes.values() if n.has_bodies})
    return [f"bodies of {', '.join(bodies)} were not examined"] if bodies else []


def examinable(path: Path, data: Path | None) -> tuple[Model, int]:
    """(the model at ``path``, how many samples of ``data`` would be run); the first of them is looked at.

    Raises:
        ModelError, DataError: as :func:`diagnose`.
    """
    model = load(path)
    return model, len(_samples(path, data))


def _samples(path: Path, data: Path | None) -> list[Feed]:
    if data is None:
        return []
    interface = open_session(path).inputs
    return data_feeds(feeds(open_source(data, interface), interface), most=_MOST_SAMPLES)


def _times(path: Path, samples: list[Feed]) -> Mapping[str, float]:
    """Times of the kernels on the first sample, or on made inputs; empty where these do not suit the model."""
    session = open_session(path)

    def times(feed: Feed) -> Mapping[str, float]:
        session.run(feed)  # without a profile, which a run without end would fill: 1.4 GB in 6 s
        return kernel_times(path, feed)

    if samples:
        return times(samples[0])
    for usual in USUAL_SIZES:
        try:
            return times(make_feed(session.inputs, usual=usual).feed)
        except ModelError:
            continue
    return {}


def _damage(path: Path, isa: Isa, samples: list[Feed], progress: Progress | None) -> Damage | None:
    return saturation_damage(path, samples, progress) if isa is Isa.AVX2 and samples else None
