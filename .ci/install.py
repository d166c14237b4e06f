"""Install packages with pip and tell now and then how far it is; pip itself writes hundreds of lines, or none.

    python .ci/install.py --require-hashes -r requirements.txt      # arguments of `pip install`

On a terminal one line is drawn over; elsewhere a line is written every half minute. Warnings and errors are pip's own.
"""

import re
import subprocess
import sys
import threading
import time
from typing import TextIO

EVERY = 30.0  # seconds between two lines that nobody watches
FETCHING = re.compile(r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?([\w.]+)-\S+?(?: \(([^()]+)\))?\s*$")


class Progress:
    """What pip does at the moment, and for how long it has been running."""

    def __init__(self, out: TextIO, every: float) -> None:
        self.out, self.every = out, every
        self.begun = time.monotonic()
        self.doing, self.found = "starting pip", 0
        self.over = threading.Event()

    def take(self, line: str) -> None:
        """Look at a line of pip's."""
        if line.startswith("Collecting "):
            self.found += 1
            self.doing = f"package {self.found}, {re.split('[=<>; ]', line.split()[1])[0]}"
        elif found := FETCHING.match(line):
            size = f" ({found[2]})" if found[2] else ""
            self.doing = f"package {self.found}, {found[1]}{size}"
        elif line.startswith("Installing collected packages:"):
            self.doing = f"installing {line.count(',') + 1} packages"

    def tell(self) -> None:
        """Say so until it is over."""
        terminal = self.out.isatty()
        while not self.over.wait(1.0 if terminal else self.every):
            text = f"pip, {time.monotonic() - self.begun:.0f} s: {self.doing}"
            self.out.write(f"\r\033[K{text[:78]}" if terminal else f"{text}\n")
            self.out.flush()
        if terminal:
            self.out.write("\r\033[K")
            self.out.flush()


def install(arguments: list[str], out: TextIO, every: float = EVERY) -> int:
    """Run `pip install`; gives its exit status."""
    command = [sys.executable, "-u", "-m", "pip", "install", "--progress-bar", "off", *arguments]
    progress = Progress(out, every)
    teller = threading.Thread(target=progress.tell, daemon=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
        teller.start()
        try:
            for line in pip.stdout or ():
                progress.take(line)
        except KeyboardInterrupt:  # pip heard it as well
            pass
        finally:
            progress.over.set()
            teller.join()
    return pip.returncode


if __name__ == "__main__":
    sys.exit(install(sys.argv[1:], sys.stdout))
