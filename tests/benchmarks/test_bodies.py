"""The measured bodies match their names, and the table shows the measurements."""

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
    """Only shapes whose name says so are malformed."""
    body = shape.make(100_000)
    if "depth 100,000" not in shape.name and "1e999999" not in shape.name:
        assert 50_000 < len(body) < 250_000
    if shape.content_type != JSON:
        assert body.count(b'name="model"') == 1
    elif shape.name.startswith(BROKEN):
        with pytest.raises(ValueError, match=r"."):
            json.loads(body)
    elif "depth" not in shape.name:
        assert isinstance(json.loads(body, parse_int=str), dict)


def test_shape_names_are_unique() -> None:
    """Name and size identify a row of the table."""
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)


def rows(gap: float, status: int) -> list[Row]:
    """Return the rows of one shape on both request paths."""
    measured = {"gap": gap, "work": gap / 2, "memory": 20e6, "size": 10e6, "status": status}
    return [
        Row.of("a body", 10, "fast path", [{**measured, "seconds": 1.0}]),
        Row.of("a body", 10, "aiohttp", [{**measured, "gap": gap / 10, "seconds": 1.0}] * 2),
    ]


def test_the_table_has_the_worse_of_both_request_paths(tmp_path: Path) -> None:
    """It also has the earlier figures, and the page explains them."""
    text = report.table(rows(0.02, 200), rows(2.0, 400))
    assert "| a body | 10 | 20 | 10 | 2.0 | 200 | 2000 | 1000 | 2.0 | 400 |" in text
    report.save(tmp_path / "rows.json", rows(2.0, 400))
    before = report.load(tmp_path / "rows.json")
    report.write(tmp_path, rows(0.02, 200), before, rounds=3)
    page = (tmp_path / "bodies-benchmark.md").read_text()
    assert text in page
    assert "best of 3 rounds" in page
