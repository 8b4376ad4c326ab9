"""The job engine's port: enqueue in our transaction, run what is due, take up what a dead process left.

The only package that imports dbos. The domain tables are the truth and DBOS only dispatches: a workflow here has no
steps, calls one callback, and may run twice without harm, because the callback claims its job or delivery by
compare-and-set. What DBOS leaves to its proprietary part, finding dead processes, is done in `liveness` with our `node`
table.
"""

from dicom_node.engine.enqueuer import JOBS, Enqueuer, migrate, queue_of
from dicom_node.engine.executor import DRAIN_S, Executor
from dicom_node.engine.liveness import every

__all__ = ["DRAIN_S", "JOBS", "Enqueuer", "Executor", "every", "migrate", "queue_of"]
