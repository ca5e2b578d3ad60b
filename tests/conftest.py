"""Of all tests."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

# So that an assertion of the harness shows its values, and holds under `python -O`, as those of the tests do.
pytest.register_assert_rewrite("harness")

# One thread for the arithmetic of each process, and of those it starts: tensors of tests are small, and the waiting threads of
# several processes would spin away most of two cores. Before torch or numpy is imported, which read it once.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


# `make test` tries the same examples every time, `make test-all` others; no example is judged by how long it took.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("other", deadline=None, print_blob=True)
settings.load_profile("same")


def pytest_collection_finish() -> None:
    """Several thousand tests and the libraries they import stay to the end: what collects garbage need not look at them again,
    which took a third of a second each time."""
    gc.collect()
    gc.freeze()
