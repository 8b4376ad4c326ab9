"""Metrics in the text format of Prometheus, read from the database: the same wherever the work is done.

Gauges are looked up at each scrape. Counters and histograms start at zero with this process and follow the audit trail
from there, some seconds behind: a counter that starts again is what Prometheus expects of a restart. Labels hold AE
titles, and names of models, destinations, roles and events; nothing of a patient.
"""

from dicom_node.metrics.exposition import CONTENT_TYPE, Metrics

__all__ = ["CONTENT_TYPE", "Metrics"]
