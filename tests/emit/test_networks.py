"""Every network, under every recipe that emission knows: the quantized model keeps its contract and its accuracy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from networks import chain
from networks.all import NETWORKS
from networks.contract import breaches, measured

pytestmark = pytest.mark.slow

CASES = [
    *((name, "default") for name in NETWORKS),
    *(
        pytest.param(name, recipe, marks=pytest.mark.slow)
        for name in NETWORKS
        for recipe in ("per_tensor", "qoperator")
    ),
]


@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_network(name: str, recipe: str, tmp_path: Path) -> None:
    net = NETWORKS[name]()
    result = chain.convert(net, chain.RECIPES[recipe], tmp_path)
    assert not breaches(net, result)
    assert not [n for n in result.prepared.notes if "left out" in n or "undone" in n]
    taken = {p.op_type for p in result.plan.taken()}
    assert not net.quantized or taken & set(net.quantized)
    for outputs in measured(net, result.blob):
        for output, db in outputs.items():
            assert net.least_db is None or db >= net.least_db, f"{output}: {db:.1f} dB"
    if recipe == "default":
        assert chain.convert(net, chain.RECIPES[recipe], tmp_path, anew=True).blob == result.blob


_SCRIPT = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from networks import chain
from networks.all import NETWORKS
for name in ("yolo", "encoder_layernorm", "if_branches", "colliding_names"):
    for recipe in ("default", "qoperator"):
        blob = chain.convert(NETWORKS[name](), chain.RECIPES[recipe], Path(sys.argv[2])).blob
        print(name, recipe, hashlib.sha256(blob).hexdigest())
"""


@pytest.mark.slow
def test_same_bytes_in_every_process(tmp_path: Path) -> None:
    """The order of sets and the number of threads decide nothing."""
    root = Path(__file__).parents[1]
    seen = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(root), str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, threads in (("1", "1"), ("2", "2"))
    ]
    assert seen[0] == seen[1]
    assert len(seen[0].splitlines()) == 8
