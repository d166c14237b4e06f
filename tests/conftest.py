"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("bsnn", deadline=None)  # what a loaded machine takes says nothing about the code
settings.load_profile("bsnn")
