"""Nothing in the repository names the machine that it was written on, or a package registry."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import ROOT, known_files

REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("registry-1", "docker", "io"),
        ("index", "docker", "io"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("conda", "anaconda", "org"),
    )
)


EXAMPLES = {"/opt/housecall/", "/data/research/"}
"""Places that the pages recommend: a clone that lies there is no reason to fail."""


def pip_settings() -> str:
    """Where this machine has its packages from."""
    settings = [value for name, value in os.environ.items() if name.startswith("PIP_")]
    files = [Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"]
    for path in (*files, Path("/etc/pip.conf")):
        if path.is_file():
            settings.append(path.read_text(encoding="utf-8"))
    return "\n".join(settings)


def hosts() -> set[str]:
    """The registries that everybody knows, and those that this machine is set to use."""
    urls = re.findall(r"https?://[^\s\"']+", pip_settings())
    return {*REGISTRIES, *(urlsplit(url).hostname or "" for url in urls)} - {"", "localhost"}


def places() -> set[str]:
    """Folders of this machine that no file may name. Short paths, such as a container's `/app`,
    say nothing about a machine and are left out."""
    folders = {ROOT, Path.home(), Path(sys.base_prefix)}
    folders |= {Path(path) for path in re.findall(r"file://(/[^\s]+)", pip_settings())}
    return {f"{folder}/" for folder in folders if len(folder.parts) > 2} - EXAMPLES


def texts() -> Iterator[tuple[str, str]]:
    for path in known_files():
        try:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


@pytest.mark.parametrize("what", ["a package registry", "a place on this machine"])
def test_no_file_names(what: str) -> None:
    marks = hosts() if "registry" in what else places()
    pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(mark)}" for mark in sorted(marks)))
    subdomains = re.compile("|".join(rf"[\w-]\.{re.escape(mark)}\b" for mark in sorted(marks)))
    found = {
        name: match[0]
        for name, text in texts()
        for match in [pattern.search(text) or subdomains.search(text)]
        if match
    }
    assert not found, f"{what} is named in {found}"


def test_markdown_is_plain() -> None:
    """No emoji, no banner, no trailing blanks: what is written is read as text."""
    for name, text in texts():
        if name.endswith(".md"):
            odd = [char for char in text if ord(char) >= 0x2600]
            assert not odd, f"{name}: {odd[:3]}"
            assert not re.search(r"[ \t]+$", text, re.MULTILINE), f"{name}: trailing blanks"
