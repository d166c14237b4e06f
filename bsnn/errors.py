"""Errors that a user can cause and mend. Each message says what is wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class BsnnError(Exception):
    """Base of all errors that name something the user can mend; the CLI and the scripts print the message alone."""


class ConfigError(BsnnError):
    """A setting is unknown, impossible, or contradicts another."""


class DataError(BsnnError):
    """A data set is missing, damaged, or not what it claims to be."""


class ArtifactError(BsnnError):
    """A file written by an earlier stage is missing, damaged, or of another kind, version or shape."""


class ConversionError(BsnnError):
    """A network, or a switch, cannot be converted to a spiking network as asked."""


class EngineError(BsnnError):
    """An engine cannot run this network on this device."""


class Interrupted(BsnnError):
    """A signal asked for the end; what was done so far is kept."""


def meant(name: str, known: Iterable[str]) -> str:
    """A question after a name that a misspelled one may be: "; is 'latency' meant?", or nothing."""
    return "".join(f"; is '{one}' meant?" for one in get_close_matches(name, list(known), n=1))


def of_name(name: str, message: str) -> BsnnError:
    """An error that another process raised, by the name of its class; of the base where this module has none."""
    classes = {kind.__name__: kind for kind in BsnnError.__subclasses__()}
    return classes.get(name, BsnnError)(message)
