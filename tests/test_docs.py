"""The documents name tests; these exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("document", ["docs/guarantees.md", "docs/inputs.md"])
def test_named_tests_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)?(?:::)?(test_\w+)?`", text)
    assert len(named) > 20
    for file, test in named:
        source = (ROOT / "tests" / (file or "test_errors.py")).read_text(encoding="utf-8")
        assert f"def {test or 'test_'}" in source, (file, test)
