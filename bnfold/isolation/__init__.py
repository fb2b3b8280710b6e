"""Models run in a child process, so that a runtime that crashes or hangs costs a result at most.

The child is kept for the next job, because it takes a second to start. It ends with its parent.
"""

from bnfold.isolation.process import Job, Worker, can_isolate, run_fresh, run_isolated

__all__ = ["Job", "Worker", "can_isolate", "run_fresh", "run_isolated"]
