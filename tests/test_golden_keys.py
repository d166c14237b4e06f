"""Keys, paths and defaults stay what they are, unless the version of a stage says otherwise."""

import json
from copy import deepcopy

import golden_for_tests as golden

from bsnn.config.values import Section

HOW = "if this is meant, raise the stage's version and run: python tests/golden_for_tests.py"


def test_keys_and_paths_are_the_recorded_ones() -> None:
    before, now = json.loads(golden.KEYS.read_text()), golden.golden()
    assert list(now) == list(before), HOW
    changed = [
        f"{name}, {kind}:\n  recorded {before[name].get(kind)}\n  now      {now[name].get(kind)}"
        for name in now
        for kind in sorted({*before[name], *now[name]})
        if before[name].get(kind) != now[name].get(kind)
    ]
    assert not changed, "\n".join([*changed, HOW])


def test_changed_default_raises_a_version() -> None:
    """A default is no part of a key: where it changes, old artifacts would be taken for new ones."""
    before, now = json.loads(golden.DEFAULTS.read_text()), golden.defaults()
    assert not golden.unversioned(before, now)
    assert now == before, "record new settings and versions: python tests/golden_for_tests.py"


def test_guard_sees_a_changed_default() -> None:
    before = golden.defaults()
    now = deepcopy(before)
    now["Thresholds"]["defaults"]["population"] = "positive"
    [complaint] = golden.unversioned(before, now)
    assert "'all' -> 'positive'" in complaint
    assert complaint.endswith("raise the version of thresholds, method, ideal, search")
    for stage in ("thresholds", "method", "ideal"):
        now["Thresholds"]["versions"][stage] += 1
    [complaint] = golden.unversioned(before, now)
    assert complaint.endswith("raise the version of search")
    now["Thresholds"]["versions"]["search"] += 1
    assert not golden.unversioned(before, now)


def test_every_section_is_guarded_or_counts_by_value() -> None:
    def below(section: type[Section]) -> set[type[Section]]:
        return {section}.union(*map(below, section.__subclasses__()))

    ours = {section for section in below(Section) - {Section} if section.__module__.startswith("bsnn.config")}
    assert ours == set(golden.LEFT_OUT) | golden.OTHERS
    assert not set(golden.LEFT_OUT) & golden.OTHERS
