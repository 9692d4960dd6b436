"""Methods by name."""

from __future__ import annotations

import re
from typing import Any

import pytest

import stepcredit as sc
from stepcredit.errors import MethodError


@pytest.mark.parametrize(("name", "shown"), [(3, "3"), (None, "None"), (["pass"], "['pass']")])
def test_a_name_that_is_no_string_is_refused(name: Any, shown: str) -> None:
    reason = re.escape(f"expected the name of a method, got {shown}")
    with pytest.raises(MethodError, match=f"^{reason}$"):
        sc.estimator(name)
