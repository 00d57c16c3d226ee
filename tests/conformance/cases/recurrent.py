"""LSTM, GRU and RNN, forward and in both directions, with a bias and without; weights too small to be worth storing."""

from conformance.case import Case

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _case(op: str, name: str, *, attributes: str = "", directions: int = 1, hidden: int = 24, **more: object) -> Case:
    gates = _GATES[op] * hidden
    return Case(
        name=f"{op.lower()}-{name}",
        body=f"y, h = {op}<hidden_size={hidden}{attributes}>(x, w, r, b)",
        inputs={"x": (7, 2, 32)},
        constants={
            "w": (directions, gates, 32),
            "r": (directions, gates, hidden),
            "b": (directions, 2 * gates),
        },
        outputs=("y", "h"),
        **more,
    )


CASES = (
    _case("LSTM", "forward"),
    _case("LSTM", "both-ways", attributes=', direction="bidirectional"', directions=2),
    _case("LSTM", "clipped", attributes=", clip=0.5"),
    _case("GRU", "forward"),
    _case("GRU", "both-ways", attributes=', direction="bidirectional", linear_before_reset=1', directions=2),
    _case("RNN", "forward"),
    # its recurrence weights, [1, 16, 16], stay float
    _case("RNN", "one-weight", hidden=16),
    _case("GRU", "small", hidden=4, stays_float=("GRU",)),
)
