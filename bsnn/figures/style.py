"""How figures are drawn and written: without a display, and as the same bytes for the same content.

No dates, no versions, fixed identifiers, text as outlines; a user's own settings of matplotlib have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsnn import artifacts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#333333"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.title_fontsize": 9,
    "svg.hashsalt": "bsnn",
    "svg.fonttype": "path",
    "savefig.dpi": 200,
}
METADATA = {"svg": {"Date": None}, "png": {"Software": None}}


@contextmanager
def style(settings: Any = STYLE) -> Iterator[None]:
    """Reset matplotlib to its defaults plus these settings; restore the caller's settings on exit."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def draw(figures: Mapping[str, Callable[..., Figure]], folder: Path, *given: Any) -> None:
    """Draw figures and write each, by its name, as SVG and PNG.

    Args:
        figures: what draws each, from what is given.
        folder: where they go.
        given: results, or tables.

    Raises:
        ArtifactError: when the folder cannot be written.
    """
    with style():
        for name, make in figures.items():
            save(make(*given), folder, name)


def save(figure: Figure, folder: Path, name: str, kinds: tuple[str, ...] = ("svg", "png")) -> None:
    """Write a figure, drawn within `style`, as NAME.svg and NAME.png.

    Raises:
        ArtifactError: when the folder cannot be written.
    """
    for kind in kinds:
        metadata = METADATA[kind] | ({"Title": name} if kind == "svg" else {})
        with artifacts.replacing(folder / f"{name}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)
