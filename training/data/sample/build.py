"""Make the sample from Debian's package index, as apt holds it: `python -m training.data.sample.build --out DIR`.

A point is a package: its text is name and short description, its labels are the packages it pre-depends on, depends
on, recommends or suggests. README.md beside this file states the rules and what came out of them.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.card import write_card
from training.data.files import DataError
from training.data.json_lines import write_json_lines
from training.data.staging import new_folder

NAME = "debian-bookworm"
INDEX = ("Created-By: Packages", "Origin: Debian", "Codename: bookworm", "Component: main", "Architecture: amd64")
RELATIONS = ("pre-depends", "depends", "recommends", "suggests")
MOST_USERS = 1000
TEST_SHARE = 0.1
SEED = 0
GZIP_LEVEL = 9


@dataclass(frozen=True)
class Package:
    """One stanza of the index.

    Attributes:
        source: name of the source package that the package is built from.
        text: name and short description.
        wants: names the package relates to, virtual ones too.
    """

    source: str
    text: str
    wants: frozenset[str]


@dataclass(frozen=True)
class Sample:
    """The data set, before it is written.

    Attributes:
        train: labels of each training point, by package name; both sorted.
        test: likewise for the test points.
        labels: the packages that are labels, sorted.
    """

    train: dict[str, list[str]]
    test: dict[str, list[str]]
    labels: list[str]


def read_index() -> str:
    """Return the package index of bookworm main, without its security and updates archives, through apt's tools.

    Raises:
        RuntimeError: apt has not exactly one such index.
    """
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(FILENAME)", *INDEX], check=True, capture_output=True, text=True
    ).stdout.split()
    if len(listed) != 1:
        raise RuntimeError(
            f"apt: expected one index with {', '.join(INDEX)}, found {len(listed)}; try `apt-get update`"
        )
    helper = ["/usr/lib/apt/apt-helper", "cat-file", *listed]
    return subprocess.run(helper, check=True, capture_output=True, encoding="utf-8").stdout


def parse_index(text: str) -> dict[str, Package]:
    """Return the packages of an index by name; of a name listed twice, the first stanza counts."""
    packages: dict[str, Package] = {}
    for stanza in text.strip("\n").split("\n\n"):
        fields = dict(_fields(stanza))
        name = fields["package"]
        wants = frozenset(want for relation in RELATIONS for want in _names(fields.get(relation, "")))
        source = fields.get("source", name).split(" ")[0]  # may carry a version, as in `gcc-defaults (1.203)`
        packages.setdefault(name, Package(source, f"{name} {fields['description']}", wants))
    return packages


def make_sample(packages: Mapping[str, Package], *, most_users: int, test_share: float, seed: int) -> Sample:
    """Apply the rules to an index.

    Args:
        packages: all packages of the index, by name.
        most_users: a package that more packages than this relate to is no label.
        test_share: share of the sources, among those that have points, whose packages are test points.
        seed: of the draw of these sources.
    """
    real = {name: package.wants & packages.keys() for name, package in packages.items()}
    users = Counter(want for wants in real.values() for want in wants)
    points: dict[str, list[str]] = {}
    for name in sorted(packages):
        source = packages[name].source
        labels = [want for want in real[name] if users[want] <= most_users and packages[want].source != source]
        if labels:
            points[name] = sorted(labels)
    test_sources = _draw(sorted({packages[name].source for name in points}), test_share, seed)
    return Sample(
        train={name: labels for name, labels in points.items() if packages[name].source not in test_sources},
        test={name: labels for name, labels in points.items() if packages[name].source in test_sources},
        labels=sorted({label for labels in points.values() for label in labels}),
    )


def write_sample(out: Path, sample: Sample, packages: Mapping[str, Package]) -> None:
    """Write a data folder in XC raw layout, with the checksums of its files.

    Raises:
        DataError: `out` exists.
    """
    label_rows = {label: row for row, label in enumerate(sample.labels)}

    def points(split: Mapping[str, Sequence[str]]) -> Iterator[dict[str, object]]:
        for name, labels in split.items():
            yield {"uid": name, "title": packages[name].text, "target_ind": [label_rows[label] for label in labels]}

    with new_folder(out) as folder:
        write_card(folder, NAME)
        titles = ({"uid": label, "title": packages[label].text} for label in sample.labels)
        write_json_lines(folder / "lbl.json.gz", titles, level=GZIP_LEVEL)
        write_json_lines(folder / "trn.json.gz", points(sample.train), level=GZIP_LEVEL)
        write_json_lines(folder / "tst.json.gz", points(sample.test), level=GZIP_LEVEL)
        sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.iterdir())]
        (folder / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


def main() -> None:
    """Build the sample into a new folder and print its counts."""
    parser = argparse.ArgumentParser(description="Make the sample from Debian's package index.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    out = parser.parse_args().out
    try:
        packages = parse_index(read_index())
        sample = make_sample(packages, most_users=MOST_USERS, test_share=TEST_SHARE, seed=SEED)
        write_sample(out, sample, packages)
    except (DataError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    sys.stdout.write(f"{len(sample.train)} train, {len(sample.test)} test, {len(sample.labels)} labels in {out}\n")


def _fields(stanza: str) -> Iterator[tuple[str, str]]:
    """Yield the first lines of a stanza's fields; the ones used here have no others."""
    for line in stanza.split("\n"):
        if not line.startswith((" ", "\t")):
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()


def _names(relation: str) -> Iterator[str]:
    """Yield the names in a relation field such as `a (>= 1) | b, c:any`, without versions and architectures."""
    for alternative in re.split(r"[,|]", relation):
        name = re.match(r"[a-z0-9][a-z0-9+.-]*", alternative.strip())
        if name is not None:
            yield name[0]


def _draw(sources: Sequence[str], share: float, seed: int) -> set[str]:
    """Draw sources; `random()` is the one generator that Python promises to keep."""
    draw = random.Random(seed).random
    keys = {source: draw() for source in sources}
    return set(sorted(sources, key=keys.__getitem__)[: round(len(sources) * share)])


if __name__ == "__main__":
    main()
