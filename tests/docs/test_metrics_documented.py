"""`docs/metrics.md` lists the exported metrics."""

import re
from pathlib import Path

from olla.telemetry.metric_catalogue import CATALOGUE, metric_row, table

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


def test_every_metric_is_documented_and_no_other() -> None:
    """Each metric has one row on the page, and each row is a metric."""
    assert sorted(_ROW.findall(PAGE)) == sorted(row.name for row in CATALOGUE)


def test_the_table_matches_the_catalogue() -> None:
    """Types, labels and meanings on the page are those of the catalogue, word for word."""
    assert table() in PAGE, f"put this into docs/metrics.md:\n\n{table()}"


def test_the_queries_name_metrics_and_labels_that_exist() -> None:
    """The example queries use only exported metrics and their labels."""
    names = {row.name for row in CATALOGUE}
    queries = re.findall(r"\| `([^`]+)` \|$", PAGE, re.MULTILINE)
    assert queries
    for query in queries:
        for name in re.findall(r"olla_\w+", query):
            assert (name if name in names else _SUFFIX.sub("", name)) in names
        for name, labels in re.findall(r"(olla_\w+)\{([^}]*)\}", query):
            row = metric_row(name if name in names else _SUFFIX.sub("", name))
            used = set(re.findall(r"(\w+)[=!]", labels)) - {"le"}
            assert used <= set(row.labels)
