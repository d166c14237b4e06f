"""Make the README's picture of a report: `make picture`, with chromium and chromium-driver installed.

The report must be of the tables that results/reference holds, those of EXPERIMENT, under the command that stands in
its origin.json. The picture is what a browser shows of it, cut out and reduced to 64 colours.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import time
from pathlib import Path

import pandas as pd
from PIL import Image

sys.path.insert(0, "tests")
from browser_for_tests import browser

EXPERIMENT = "cifar100-half"
REFERENCE = Path("results/reference") / EXPERIMENT
REPORT = Path("results") / EXPERIMENT / "report.html"
TARGET = Path("docs/report.png")
WIDTH = 1100  # of the window, in CSS pixels
LARGEST = 150_000  # bytes
PART = """
const above = document.getElementById("glance").getBoundingClientRect();
const below = document.getElementById("explorer-chart").getBoundingClientRect();
const margin = 12;
const height = below.bottom - above.top + 2 * margin;
return {x: 0, y: above.top + scrollY - margin, width: innerWidth, height, scale: 1};
"""


def check() -> None:
    """Refuse a report of other numbers than the reference has."""
    command = json.loads((REFERENCE / "origin.json").read_text())["command"]
    if not REPORT.is_file():
        sys.exit(f"{REPORT}: no such file; make it with: {command}")
    for name in ("accuracy.csv", "accuracy_over_time.csv", "spikes_by_layer.csv"):
        found, kept = (pd.read_csv(folder / name) for folder in (REPORT.parent / "tables", REFERENCE))
        if not found.equals(kept):
            sys.exit(f"{REPORT.parent}/tables/{name} is not {REFERENCE}/{name}; make it with: {command}")


def picture() -> Image.Image:
    """The report from its first section to the explorer's chart, light, in a browser without a network."""
    with browser(WIDTH) as page:
        page.get(REPORT.absolute().as_uri())
        deadline = time.monotonic() + 60
        while not page.execute_script("return document.getElementById('explorer').dataset.drawn"):
            if time.monotonic() > deadline:
                sys.exit(f"{REPORT}: its chart was not drawn within a minute")
            time.sleep(0.1)
        options = {"clip": page.execute_script(PART), "captureBeyondViewport": True}
        shot = page.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
    with Image.open(io.BytesIO(base64.b64decode(shot))) as image:
        return image.convert("RGB").quantize(64, dither=Image.Dither.NONE)


if __name__ == "__main__":
    check()
    picture().save(TARGET, optimize=True)
    if TARGET.stat().st_size > LARGEST:
        sys.exit(f"{TARGET} has {TARGET.stat().st_size:,} bytes, more than {LARGEST:,}")
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")
