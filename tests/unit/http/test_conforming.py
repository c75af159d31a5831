"""Whatever the OpenAPI document allows or forbids is answered as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.full


@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "forbidden"])
def test_every_operation_answers_as_the_document_says(tmp_path: Path, allowed: bool) -> None:
    from .conforming import ask_all  # schemathesis comes with the group "full" alone

    ask_all(tmp_path, allowed=allowed)
