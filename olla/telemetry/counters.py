"""Counters and histograms as plain numbers, folded into Prometheus' form when somebody asks.

prometheus_client's own instruments take a lock and walk over the buckets at each observation,
0.5 to 1 µs each, ten times a request. Here an observation adds to a float and to one of a list's
integers. They are only touched by the event loop, so no lock is needed.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from olla.telemetry.metric_catalogue import MetricRow, metric_row

__all__ = ["Bins", "Counter", "Histogram", "Tallies", "Tally"]

Labels = tuple[str, ...]


class Tally:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Bins:
    """What was observed, by upper bounds: `counts` has one more for what is above the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counter:
    """A counter's children by their labels."""

    def __init__(self, row: MetricRow) -> None:
        self._row = row
        self._children: dict[Labels, Tally] = {}

    def labels(self, *labels: str) -> Tally:
        """The child with these labels, in the row's order."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = Tally()
        return child

    def endpoints(self) -> Iterator[tuple[str, float]]:
        """Which endpoint each child is about, and what it has counted."""
        at = _endpoint_at(self._row)
        if at is not None:
            for labels, child in self._children.items():
                yield labels[at], child.value

    def forget(self, endpoint: str) -> None:
        """Drop the children that are about an endpoint."""
        at = _endpoint_at(self._row)
        if at is not None:
            for labels in [each for each in self._children if each[at] == endpoint]:
                del self._children[labels]

    def family(self) -> Metric:
        """All children as they are now."""
        family = CounterMetricFamily(self._row.name, self._row.meaning, labels=self._row.labels)
        for labels, child in self._children.items():
            family.add_metric(labels, child.value)
        return family


class Histogram:
    """A histogram's children by their labels."""

    def __init__(self, row: MetricRow) -> None:
        self._row = row
        self._children: dict[Labels, Bins] = {}

    def labels(self, *labels: str) -> Bins:
        """The child with these labels, in the row's order."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = Bins(self._row.buckets)
        return child

    def endpoints(self) -> Iterator[tuple[str, float]]:
        """Which endpoint each child is about, and how much it has observed."""
        at = _endpoint_at(self._row)
        if at is not None:
            for labels, child in self._children.items():
                yield labels[at], sum(child.counts)

    def forget(self, endpoint: str) -> None:
        """Drop the children that are about an endpoint."""
        at = _endpoint_at(self._row)
        if at is not None:
            for labels in [each for each in self._children if each[at] == endpoint]:
                del self._children[labels]

    def family(self) -> Metric:
        """All children as they are now; one without labels is there from the start."""
        row = self._row
        family = HistogramMetricFamily(row.name, row.meaning, labels=row.labels)
        if not row.labels:
            self.labels()
        for labels, child in self._children.items():
            family.add_metric(labels, [*_cumulative(child)], child.total)
        return family


def _endpoint_at(row: MetricRow) -> int | None:
    return row.labels.index("endpoint") if "endpoint" in row.labels else None


def _cumulative(bins: Bins) -> Iterator[tuple[str, float]]:
    count = 0
    for bound, more in zip((*bins.bounds, float("inf")), bins.counts, strict=True):
        count += more
        yield ("+Inf" if bound == float("inf") else repr(float(bound))), count


class Tallies(Collector):
    """The counters and histograms of one router."""

    def __init__(self) -> None:
        self._instruments: list[Counter | Histogram] = []

    def counter(self, name: str) -> Counter:
        """A counter of the catalogue."""
        counter = Counter(metric_row(name))
        self._instruments.append(counter)
        return counter

    def histogram(self, name: str) -> Histogram:
        """A histogram of the catalogue."""
        histogram = Histogram(metric_row(name))
        self._instruments.append(histogram)
        return histogram

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry then does not collect in order to learn names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        for instrument in self._instruments:
            yield instrument.family()

    def endpoints(self) -> dict[str, float]:
        """The endpoints that something was counted of, each with a number that grows whenever
        something more is."""
        found: dict[str, float] = {}
        for instrument in self._instruments:
            for endpoint, count in instrument.endpoints():
                found[endpoint] = found.get(endpoint, 0.0) + count
        return found

    def forget(self, endpoint: str) -> None:
        """Drop what was counted of an endpoint."""
        for instrument in self._instruments:
            instrument.forget(endpoint)
