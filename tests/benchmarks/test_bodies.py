"""The bodies that are measured are what their names say, and the table tells what was measured."""

import json
from pathlib import Path

import pytest

from benchmarks.bodies import report
from benchmarks.bodies.report import Row
from benchmarks.bodies.shapes import JSON, SHAPES, Shape

BROKEN = ("not JSON", "not UTF-8")
NESTED_MAX = 900


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_has_its_size_and_is_well_formed(shape: Shape) -> None:
    """Harmless to a reader in C, but for those that say otherwise."""
    body = shape.make(100_000)
    if "depth 100,000" not in shape.name and "1e999999" not in shape.name:
        assert 50_000 < len(body) < 250_000
    if shape.content_type != JSON:
        assert body.count(b'name="model"') == 1
    elif shape.name.startswith(BROKEN):
        with pytest.raises(ValueError, match=r"."):
            json.loads(body)
    elif "depth" not in shape.name and "digits" not in shape.name:
        assert isinstance(json.loads(body), dict)


def test_names_of_shapes_differ() -> None:
    """A row of the table is found by its name and size."""
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)


def rows(gap: float, status: int) -> list[Row]:
    """One shape by both ways in."""
    measured = {"gap": gap, "work": gap / 2, "memory": 20e6, "size": 10e6, "status": status}
    return [
        Row.of("a body", 10, "fast path", [{**measured, "seconds": 1.0}]),
        Row.of("a body", 10, "aiohttp", [{**measured, "gap": gap / 10, "seconds": 1.0}] * 2),
    ]


def test_the_table_has_the_worse_of_both_ways(tmp_path: Path) -> None:
    """Beside what it was before; the page has it with what it means."""
    text = report.table(rows(0.02, 200), rows(2.0, 400))
    assert "| a body | 10 | 20 | 10 | 2.0 | 200 | 2000 | 1000 | 2.0 | 400 |" in text
    report.save(tmp_path / "rows.json", rows(2.0, 400))
    kept = report.load(tmp_path / "rows.json")
    report.write(tmp_path, rows(0.02, 200), kept, rounds=3)
    page = (tmp_path / "bodies-benchmark.md").read_text()
    assert text in page
    assert "best of 3 rounds" in page
