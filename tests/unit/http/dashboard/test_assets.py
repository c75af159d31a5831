"""Files: vendored ones are what their manifest says, and a browser may keep each for ever."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

import deadletter.http.dashboard
from deadletter.http.dashboard.assets import ASSETS

pytestmark = pytest.mark.anyio

ROOM = Path(deadletter.http.dashboard.__file__).parent
VENDOR = ROOM / "static" / "vendor"


def test_vendored_files_are_those_of_the_manifest():
    """Each by its checksum, each package with its licence, and no file beside them."""
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    listed = {"manifest.json"}
    for package in manifest:
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        assert package["licence"] in {"0BSD", "MIT"}
        assert [file["to"] for file in package["files"] if file["from"] == "LICENSE"]
        for file in package["files"]:
            assert hashlib.sha256((VENDOR / file["to"]).read_bytes()).hexdigest() == file["sha256"], file["to"]
            listed.add(file["to"])
    assert {path.name for path in VENDOR.iterdir()} == listed


def test_every_file_that_a_template_names_is_served():
    named = {
        name
        for path in (ROOM / "templates").glob("*.html")
        for name in re.findall(r"asset\('([^']+)'\)", path.read_text())
    }
    assert named == set(ASSETS)


def test_our_scripts_run_under_the_policy():
    """No text becomes code or markup, and nothing is fetched from elsewhere."""
    for name in ("app.js", "charts.js", "app.css"):
        text = (ROOM / "static" / name).read_text()
        assert not re.search(
            r"\beval\(|new Function|setAttribute\(\"style|insertAdjacentHTML|document\.write|https?://", text
        )


async def test_a_file_is_kept_as_long_as_it_is_the_same(client):
    for name, asset in ASSETS.items():
        response = await client.get(f"/static/{name}?v={asset.tag}")
        assert response.content == asset.body
        assert "immutable" in response.headers["cache-control"]
        assert response.headers["x-content-type-options"] == "nosniff"
    assert "immutable" not in (await client.get("/static/app.css?v=older")).headers["cache-control"]


@pytest.mark.parametrize("name", ["none.css", "../pages.py", "vendor/manifest.json", "", "%2e%2e/pages.py"])
async def test_no_other_file_is_served(client, name):
    assert (await client.get(f"/static/{name}")).status_code == 404
