"""The order of modules that `lint-imports` checks (pyproject.toml) covers all of them."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_module_has_its_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    named = {name for layer in layers for name in layer.replace("|", ":").replace(" ", "").split(":")}
    modules = [path for path in (ROOT / "bsnn").rglob("*.py") if path.name != "__init__.py"]
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in modules]
    assert not [place for place in parts if not named & {".".join(place[:2]), ".".join(place)}]
