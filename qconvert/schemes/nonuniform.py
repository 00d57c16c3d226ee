"""Weights as codes of a codebook, arithmetic in float (:mod:`qconvert.numerics.codebooks`).

    palette:16, palette:256    values fitted to the weight by k-means, one codebook in all or one for each --block rows
    nf4, fp4                   fixed values, a scale for each --block numbers
    binary                     the sign, a scale for each output channel

A product of nf4 or fp4 becomes MatMulBnb4, unless --weight-format qdq asks for operators of ONNX alone. All other
weights, those of convolutions, tables, recurrent layers and Attention among them, are decoded when the model is loaded
(:mod:`qconvert.emit.decoded_weights`): what reads them stays as it is, so there is no operator that they are not for.
Convolutions and recurrent layers of nf4 and fp4 get a codebook of 256 values, since 4 bits are too few for many of them
(docs/decisions/0027); palette:16 takes them at its word.

Zeros stay zeros but in ``binary``, which has none.
"""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.emit.additions import Additions
from qconvert.emit.decoded_weights import NODE_BYTES, DecodedEmitter
from qconvert.emit.dynamic import product_objection
from qconvert.emit.sites import Kind, Site, find_sites, other_readers, shared
from qconvert.emit.ties import tie_tables
from qconvert.errors import RecipeError
from qconvert.numerics.codebooks import Book
from qconvert.plan.model import Decision, NodePlan
from qconvert.recipe.recipe import AUTO, WHOLE_ROW, Recipe
from qconvert.rounding.books import METHODS, BookSpec, fit
from qconvert.schemes.moments import SAMPLES, each_with_moments
from qconvert.schemes.scheme import Converted, Work
from qconvert.schemes.tally import Tally

# that of QLoRA and bitsandbytes
_DEFAULT_BLOCK = 64
_UNFOLDED = (
    "ONNX Runtime decodes the weights of {} operators when it loads the model: the file is small, memory and speed are "
    "those of the float model"
)
_AT_EACH_RUN = (
    "MatMulBnb4 decodes its weight at each run: small in memory, slower than float products on a CPU; "
    "--weight-format qdq decodes when the model is loaded"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NonUniform:
    """A scheme of codebooks.

    Attributes:
        name: as users write it.
        bits: of a code.
        book: the values; None: fitted.
        bnb4: the type of MatMulBnb4 that has this book; None: there is none.
    """

    name: str
    bits: int
    book: Book | None = None
    bnb4: int | None = None

    def block(self, recipe: Recipe) -> int:
        """Numbers that share a scale, 0: those of a row; of palettes: rows that share a codebook, 0: all.

        A recipe's block is meant for its own scheme; what is mixed into that takes it where it can.
        """
        if self.book is None:
            return recipe.block if recipe.scheme == self.name else 0
        if recipe.block == 0:
            return 0 if self.bnb4 is None else _DEFAULT_BLOCK
        return 0 if recipe.block == WHOLE_ROW else recipe.block

    def operator(self, recipe: Recipe) -> int | None:
        """The type of MatMulBnb4 that products become, None: they stay products."""
        return self.bnb4 if recipe.weight_format in (AUTO, "nbits") and self.block(recipe) else None

    def check(self, recipe: Recipe) -> None:
        """Refuse what cannot be.

        Raises:
            RecipeError: with the nearest that works.
        """
        if recipe.scheme != self.name:
            return  # the choices are meant for the scheme that this one is mixed into
        refusals = [
            (
                recipe.rounding not in (AUTO, *self._methods()),
                f"{self.name} has no rounding {recipe.rounding}, which moves even steps about",
                f"give --rounding {', '.join(self._methods())}, or --scheme w4 --rounding {recipe.rounding}",
            ),
            (
                recipe.weight_format == "nbits" and self.bnb4 is None,
                f"no operator of ONNX Runtime multiplies with weights of {self.name}",
                "leave --weight-format out; nf4, fp4 and w4 have such operators",
            ),
            (
                recipe.weight_format == "nbits" and not self.block(recipe),
                f"MatMulBnb4 has blocks of 16 to 256, not a scale for each output channel, for {self.name}",
                "give --block 256, or --weight-format qdq",
            ),
            (
                self.book is None and recipe.block == WHOLE_ROW,
                f"a codebook for each output channel takes what {self.name} saves",
                "give --block 16 (output channels that share one), or leave it out for one in all",
            ),
            (
                recipe.per_channel is False and self.book is not None,
                f"{self.name} has a scale for each block or output channel, not one in all",
                "leave --per-tensor out; --scheme palette:16 has one codebook for a weight",
            ),
            (
                recipe.symmetric is False,
                f"{self.name} has no zero points to be asymmetric with",
                "leave --asymmetric out; --scheme w4 has them",
            ),
            (
                "w8" in (recipe.embeddings, recipe.lm_head),
                f"{self.name} has no 8-bit form of its own for tables or the output matrix",
                "mix it in by node: --mix Gather=w8, or give float",
            ),
            (
                recipe.format != "qdq",
                f"{self.name} has float activations, so there is no QOperator form",
                "leave --format out, or use --scheme int8",
            ),
        ]
        for wrong, message, hint in refusals:
            if wrong:
                raise RecipeError(message, hint=hint)

    def convert(self, work: Work) -> Converted:
        """Store the weights of the scheme's nodes otherwise."""
        model = work.model.clone()
        tie_tables(model)
        plans: list[tuple[tuple[Site, ...], BookSpec, int | None]] = []
        nodes: dict[str, NodePlan] = {}
        for readers in shared(find_sites(model)).values():
            owners = {work.owner(s.name, s.node.op_type) for s in readers}
            if self.name not in owners:
                continue
            operator = self._operator_for(readers, work.recipe)
            spec = self._spec(readers, work.recipe, operator)
            objection = self._objection(readers, owners, spec, work.recipe)
            if not objection:
                plans.append((readers, spec, operator))
            reason = objection or self._words(readers, spec, operator)
            for site in readers:
                if site.name not in nodes or not nodes[site.name].decision.taken:
                    decision = Decision(taken=not objection, reason=reason)
                    nodes[site.name] = NodePlan(node=site.name, op_type=site.node.op_type, decision=decision)
        emitter = DecodedEmitter(additions=Additions(model=model.ir, spool=work.spool))
        method = self._method(work)
        samples = work.samples if method == "gptq" else None
        tally = Tally()
        kinds = (Kind.PRODUCT, Kind.CONVOLUTION)
        turns = each_with_moments([p[0] for p in plans], work.model, samples, kinds)
        sizes = [readers[0].bytes for readers, _, _ in plans]
        tracked = work.progress.track(turns, label=self.name, total=sum(sizes), size=lambda turn: sizes[turn[0]])
        for i, moments in tracked:
            readers, spec, operator = plans[i]
            view = readers[0].row_view()
            codes = fit(view, spec, method, moments)
            tally.add_rows(view, codes.real_rows)
            emitter.write(readers, codes, operator)
            readers[0].unmap()
        return Converted(
            model=model,
            nodes=nodes,
            notes=(*tally.notes(), *self._notes(plans)),
            method=("k-means" if self.book is None else "nearest") if method == "rtn" else method,
            samples=min(SAMPLES, len(samples)) if samples is not None else 0,
        )

    def _methods(self) -> tuple[str, ...]:
        """Rounding methods; the error of k-means, and of signs, is the least already."""
        return METHODS if self.bnb4 is not None else ("rtn", "gptq")

    def _method(self, work: Work) -> str:
        wanted = work.recipe.rounding
        if wanted in self._methods():
            return wanted
        if work.samples is not None:
            return "gptq"
        return "mse" if self.bnb4 is not None else "rtn"

    def _operator_for(self, readers: tuple[Site, ...], recipe: Recipe) -> int | None:
        """The type of MatMulBnb4 that the products among ``readers`` become, None if they cannot."""
        products = [s for s in readers if s.kind is Kind.PRODUCT]
        alike = len({s.axis for s in readers}) == 1
        return self.operator(recipe) if products and alike and not any(map(product_objection, products)) else None

    def _spec(self, readers: tuple[Site, ...], recipe: Recipe, operator: int | None) -> BookSpec:
        block = self.block(recipe)
        if self.bnb4 is not None and {s.kind for s in readers} & {Kind.CONVOLUTION, Kind.RECURRENT}:
            return BookSpec(bits=8)
        if self.book is None:
            return BookSpec(bits=self.bits, group=block)
        shape, site = readers[0].shape, readers[0]
        rows = shape[site.axis] if site.kind is not Kind.RECURRENT else shape[0] * shape[1]
        columns = max(1, _count(shape) // max(1, rows))
        if operator is None and block and columns % block:
            block = next((b for b in (128, 64, 32, 16) if b <= block and columns % b == 0), 0)
        return BookSpec(bits=self.bits, book=self.book, block=block)

    def _objection(self, readers: tuple[Site, ...], owners: set[str], spec: BookSpec, recipe: Recipe) -> str:
        """Why a weight stays float, "" if it does not."""
        if len(owners) > 1:
            return f"its weight is shared with nodes of {', '.join(sorted(owners - {self.name}))}"
        if other := other_readers(readers):
            return f"{other} reads its weight, too"
        parts = {recipe.embeddings} if any(s.kind is Kind.TABLE for s in readers) else set()
        parts |= {recipe.lm_head} if any(s.is_head for s in readers) else set()
        if "float" in parts:
            return "kept in float by --embeddings or --lm-head"
        shape = readers[0].shape
        count, rows = _count(shape), shape[readers[0].axis]
        books = -(-rows // spec.group) if spec.group else 1
        scales = count // spec.block if spec.block else 0 if spec.book is None else rows
        stored = count * spec.bits / 8 + 4 * (books * 2**spec.bits + scales) + NODE_BYTES
        if stored >= 4 * count:
            return f"its {count:,} numbers take less than a codebook and the operators that decode them"
        return ""

    def _words(self, readers: tuple[Site, ...], spec: BookSpec, operator: int | None) -> str:
        if spec.book is None:
            what = f"a codebook of {2**spec.bits} values"
            what += f" for each {spec.group} output channels" if spec.group else ""
        else:
            what = f"{self.name} codes, " + (f"blocks of {spec.block}" if spec.block else "a scale for each channel")
        once = ", stored once for all that read it" if len(readers) > 1 else ""
        where = "MatMulBnb4" if operator is not None else "decoded when the model is loaded"
        return f"{what}, {where}{once}"

    def _notes(self, plans: list[tuple[tuple[Site, ...], BookSpec, int | None]]) -> tuple[str, ...]:
        decoded = sum(
            len(readers) for readers, _, op in plans if op is None or any(s.kind is not Kind.PRODUCT for s in readers)
        )
        at_each_run = [_AT_EACH_RUN] if any(op is not None for _, _, op in plans) else []
        return (*([_UNFOLDED.format(decoded)] if decoded else []), *at_each_run)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
