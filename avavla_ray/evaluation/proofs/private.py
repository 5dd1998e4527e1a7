"""What is published names no path and no name of the machine that it was made on."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.files import write_text

TEXTS = (".json", ".jsonl", ".md", ".csv", ".tex", ".txt")
# An absolute path of two parts or more; not the end of a relative one, nor a part of an address (https://...). JSON
# writes a new line as two characters, the second of them a letter.
_NEW_LINE = r"(?<=\\[nrt])"
ABSOLUTE = re.compile(rf"(?:{_NEW_LINE}|(?<![\w./:~\\*-]))/(?:[\w.+@=~-]+/)+[\w.+@=~-]*")
HOME = re.compile(r"(?<![\w./])~/")
HOST_IN_IP = re.compile(r"\bip=\d+\.\d+\.\d+\.\d+")


def cleaned(text: str, folders: Sequence[Path]) -> str:
    """Text with paths relative to the first of these folders that they lie in, and without those of elsewhere.

    Args:
        folders: the innermost first.
    """
    for folder in folders:
        place = str(folder.absolute())
        if len(place) > 1:
            alone = rf"(?:{_NEW_LINE}|(?<![\w.-])){re.escape(place)}"  # not the end of another path
            text = re.sub(rf"{alone}/", "", text)
            text = re.sub(rf"{alone}(?![\w.-])", ".", text)
    text = ABSOLUTE.sub(lambda found: "<path>/" + found[0].rstrip("/").rpartition("/")[2], text)
    text = HOST_IN_IP.sub("ip=<host>", text)
    host = _host()
    return text if host is None else re.sub(rf"\b{re.escape(host)}\b", "<host>", text)


def copy_public(source: Path, target: Path, folders: Sequence[Path]) -> None:
    """Copy a file, texts `cleaned`; makes the folder that it lies in.

    Raises:
        InputError: it would still name this machine.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix in TEXTS:
        write_text(target, cleaned(source.read_text(encoding="utf-8"), folders))
    else:
        shutil.copyfile(source, target)
    check_public(target)


def check_public(path: Path) -> None:
    """Refuse a file that names this machine's folders or its name.

    Raises:
        InputError: names the file and what it found.
    """
    content = path.read_bytes()
    for private in (str(Path.home()), str(Path.cwd())):
        if len(private) > 1 and re.search(re.escape(private.encode()) + rb"(?![\w.-])", content):
            raise InputError(f"{path} names {private}, a folder of this machine: write relative paths")
    if path.suffix not in TEXTS:
        return
    text, host = content.decode("utf-8", errors="replace"), _host()
    found = ABSOLUTE.search(text) or HOME.search(text)
    if found is not None:
        raise InputError(f"{path} names {found[0]}, a path of this machine: write relative paths")
    if host is not None and re.search(rf"\b{re.escape(host)}\b", text):
        raise InputError(f"{path} names {host}, which is this machine: leave it out")


def _host() -> str | None:
    """This machine's name, where it can be told from a word."""
    name = socket.gethostname()
    return name if len(name) >= 4 and re.search(r"[\d.-]", name) else None
