"""What a command line names in stores, brought to this machine before the job reads it.

--output URI                the job works in a local folder, which is brought from there and mirrored to there
--checkpoint URI and others that name a file or folder to read: a local copy
--demos URI                 left as it is: data sets are read where they lie
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.told_to_end import leaving_on_sigterm

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
OUTPUT = "output"
ALSO_READ = ("recipe",)  # a name, or a file


@contextlib.contextmanager
def brought(words: list[str], settings_type: Any) -> Iterator[list[str]]:
    """The words with local paths in place of addresses; the output is mirrored inside the `with` block.

    Raises:
        InputError: an address is wrong, nothing is there, or its store does not answer.
        SystemExit: the block itself went well, but at its end the store has not got everything.
    """
    places = {} if {"-h", "--help"} & set(words) else _places(words, settings_type)
    if not places:
        yield words
        return
    from avavla_ray.storage.copies import local_copy

    words = list(words)
    output = None
    for name, (index, prefix, uri) in places.items():
        if name == OUTPUT:
            output = index, prefix, uri
        else:
            words[index] = prefix + str(local_copy(uri))
    if output is None:
        yield words
        return
    index, prefix, uri = output
    with mirrored(uri) as folder:
        words[index] = prefix + str(folder)
        yield words


@contextlib.contextmanager
def mirrored(uri: str) -> Iterator[Any]:
    """A local folder for what lies, or is to lie, at an address: brought from there, and mirrored to there."""
    from avavla_ray.storage.mirror import Mirror, Unpublished, every
    from avavla_ray.storage.names import remember, tidy
    from avavla_ray.storage.place import Place
    from avavla_ray.storage.publisher import Publisher
    from avavla_ray.storage.staging import Staging

    uri, seconds = tidy(uri), every()
    place = Place.of(uri)
    staging = Staging(place)
    with staging.lock:
        newest = staging.bring()
        remember(staging.folder, str(place), uri, output=True)
        held = f"generation {newest.generation}" if newest.generation else "nothing yet"
        print(f"{place} holds {held}; working in {staging.folder}", flush=True)
        try:
            with leaving_on_sigterm(), Mirror(Publisher(staging.folder, place, staging.notes, newest), seconds):
                yield staging.folder
        except Unpublished as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise SystemExit(1) from None


def _places(words: list[str], settings_type: Any) -> dict[str, tuple[int, str, str]]:
    """Addresses in the words, by the settings they are given for: index of the word, what stands before, address."""
    paths = {each.name for each in dataclasses.fields(settings_type) if "Path" in str(each.type)} | {*ALSO_READ}
    found: dict[str, tuple[int, str, str]] = {}
    for index, word in enumerate(words):
        if not word.startswith("--"):
            continue
        option, equals, value = word.partition("=")
        name = option[2:].replace("-", "_")
        if name not in paths:
            continue
        if not equals:
            if index + 1 == len(words):
                continue
            index, value = index + 1, words[index + 1]
        if URI.match(value):
            if name in found:
                raise InputError(f"{option} is given twice: give it once")
            found[name] = index, f"{option}=" if equals else "", value
    return found
