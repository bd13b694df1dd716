"""A bill of materials (CycloneDX) and a list of licences for every extra: `make sbom`.

    python -m tests.release.bills --out build [--wheels FOLDER] [EXTRA ...]

writes ``sbom/EXTRA.cdx.json`` and ``licences/EXTRA.md``. Packages and their versions are those that are installed, and
those of wheels in a folder: the GPU's flavour cannot be installed beside the CPU's. Ends with 1 where a package or its
licence is not known, or the licence neither allowed nor accepted with a reason; see `tests/release/licences.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.release.closure import EXTRAS, PROJECT, Found, closure, find_distributions, requirements
from tests.release.licences import ACCEPTED, licence_of, objections

SCHEMA = SchemaVersion.V1_6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.release.bills", description="Write bills of materials.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="which ones (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write them into")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to read instead of what is installed")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.extras) - set(EXTRAS):
        parser.error(
            f"expected extras of pyproject.toml ({', '.join(EXTRAS)}), but found: {', '.join(sorted(unknown))}"
        )
    found = find_distributions(sorted(chosen.wheels.glob("*.whl")) if chosen.wheels else ())
    for name in ("sbom", "licences"):
        (chosen.out / name).mkdir(parents=True, exist_ok=True)
    objected: set[str] = set()
    for extra in chosen.extras or EXTRAS:
        try:
            needed = closure(requirements(extra), found)
        except KeyError as error:
            objected.add(f"{extra}: no bill, as {error.args[0]} is neither installed nor among the wheels (--wheels)")
            continue
        (chosen.out / "sbom" / f"{extra}.cdx.json").write_text(bill(extra, needed, found), encoding="utf-8")
        (chosen.out / "licences" / f"{extra}.md").write_text(licence_list(extra, needed, found), encoding="utf-8")
        print(f"{extra}: {len(needed)} packages")
        objected.update(objections(found[name] for name in needed))
    for sentence in sorted(objected):
        print(sentence, file=sys.stderr)
    return 1 if objected else 0


def bill(extra: str, needed: dict[str, set[str]], found: Found) -> str:
    """The bill of materials of the project with one extra, as CycloneDX in JSON.

    Raises:
        ValueError: it does not fit CycloneDX's schema.
    """
    root = _component(PROJECT["name"], PROJECT["version"], PROJECT["license"], ComponentType.APPLICATION)
    parts = {name: _component(found[name].name, found[name].version, licence_of(found[name])) for name in needed}
    bom = Bom(components=parts.values())
    bom.metadata.component = root
    asked = {canonicalize_name(Requirement(line).name) for line in requirements(extra)}
    bom.register_dependency(root, [parts[name] for name in sorted(asked)])
    for name, others in needed.items():
        bom.register_dependency(parts[name], [parts[other] for other in sorted(others)])
    text = make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=2)
    if fault := JsonStrictValidator(SCHEMA).validate_str(text):
        raise ValueError(f"the bill of {extra} does not fit the schema of CycloneDX {SCHEMA.to_version()}: {fault}")
    return text


def licence_list(extra: str, needed: dict[str, set[str]], found: Found) -> str:
    """A table of packages and their licences, as Markdown."""
    rows = [f"| {found[name].name} | {found[name].version} | {licence_of(found[name])} |" for name in sorted(needed)]
    head = [f"# Licences of {PROJECT['name']}[{extra}] {PROJECT['version']}", "", "| Package | Version | Licence |"]
    notes = [f"- {name}: {ACCEPTED[name]}" for name in sorted(needed) if name in ACCEPTED]
    return "\n".join([*head, "|---|---|---|", *rows, *([""] if notes else []), *notes]) + "\n"


def _component(name: str, version: str, licence: str | None, kind: ComponentType = ComponentType.LIBRARY) -> Component:
    return Component(
        name=name,
        version=version,
        type=kind,
        bom_ref=f"{name}@{version}",
        purl=PackageURL("pypi", name=name.lower(), version=version),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else (),
    )


if __name__ == "__main__":
    sys.exit(main())
