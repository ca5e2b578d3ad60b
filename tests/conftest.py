"""Of all tests."""

from __future__ import annotations

import pytest

# So that an assertion of the harness shows its values, and holds under `python -O`, as those of the tests do.
pytest.register_assert_rewrite("harness")
