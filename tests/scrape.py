"""A scrape as Prometheus does it: over HTTP, read by the client library's own parser."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """What was exposed at `listen`."""

    def __init__(self, listen: str) -> None:
        with urllib.request.urlopen(f"http://{listen}/metrics", timeout=10) as answer:
            self.text = answer.read().decode()
        families = list(text_string_to_metric_families(self.text))
        self.names = {family.name for family in families}
        self.samples = [sample for family in families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"{name}{labels} is not there"
        return sum(found)

    def labels(self) -> set[tuple[str, str]]:
        return {pair for sample in self.samples for pair in sample.labels.items()}
