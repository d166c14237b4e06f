"""Write environment.yml: the pins of requirements.txt, for conda users.

    python .ci/environment.py > environment.yml

Without hashes and without `-r`, since conda's pip takes neither an editable package beside hashes nor a path that is
relative to another folder.
"""

import re
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.txt"
HEADER = """# The pins of requirements.txt, for conda users (written by `make lock`):
#   conda env create -f environment.yml && conda activate bsnn && pip install --no-deps --no-build-isolation -e .
name: bsnn
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def pins(lock: str) -> list[str]:
    """Requirements of a hash-locked file, without the hashes."""
    found = re.findall(r"^([A-Za-z0-9].*?==.*?) *\\$", lock, flags=re.MULTILINE)
    return [pin.replace('"', "'") for pin in found]


def environment(lock: str) -> str:
    """Text of environment.yml."""
    return HEADER + "".join(f'      - "{pin}"\n' for pin in pins(lock))


if __name__ == "__main__":
    print(environment(LOCK.read_text()), end="")
