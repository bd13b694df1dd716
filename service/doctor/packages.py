"""Packages: what the service and these settings need, by the requirements that wheels declare."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import TYPE_CHECKING, NamedTuple

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok
from service.settings import Settings, variable

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OURS = "xmcserve"
# Settings that need an extra; gRPC is not here, for its port may be 0.
EXTRAS = {"bundle_keys": "signing", "otlp_endpoint": "otel", "prediction_log": "predictions", "ray": "ray"}


class _Needed(NamedTuple):
    """A requirement, and the package and the extra of it that it comes from."""

    requirement: Requirement
    by: str
    extra: str


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    ours = _distribution(OURS)
    if ours is None:
        install = "pip install -c constraints.txt '.[serve,cpu]', or '.[serve,gpu]'"
        yield fault(OURS, "expected it to be installed, found only its source on the path", install)
        return
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    wanted = SpecifierSet(ours.metadata["Requires-Python"])
    found = platform.python_version()
    if wanted.contains(found, prereleases=True):
        yield ok("Python", f"{found}, {platform.python_implementation()} on {platform.machine()}")
    else:
        yield fault("Python", f"expected {wanted}, found {found}", f"make an environment with Python {wanted}")
    extras = _extras(context.settings)
    problems = list(_problems(Requirement(f"{OURS}[{','.join(extras)}]")))
    yield from problems
    if not problems:
        yield ok(OURS, f"{ours.version} with {', '.join(extras)}: every package is there and fits")


def _extras(settings: Settings) -> list[str]:
    """Extras that a server with these settings needs."""
    # The flavour that is there: whether it is the right one for the device, the check of CUDA tells.
    on_gpu = _distribution("onnxruntime-gpu") is not None
    if _distribution("onnxruntime") is None:
        on_gpu |= settings.device == "cuda"
    needed = [extra for name, extra in EXTRAS.items() if getattr(settings, name)]
    if settings.grpc_port is not None:
        needed.append("grpc")
    return ["serve", "gpu" if on_gpu else "cpu", *needed]


def _problems(first: Requirement) -> Iterator[Finding]:
    """What a requirement, and all that it leads to, finds missing or of a wrong version."""
    from packaging.requirements import Requirement

    waiting = [_Needed(first, "", "")]
    seen: set[str] = set()
    while waiting:
        needed = waiting.pop()
        if str(needed) in seen:
            continue
        seen.add(str(needed))
        found = _distribution(needed.requirement.name)
        if found is None:
            yield _problem(needed, "none")
            continue
        if not needed.requirement.specifier.contains(found.version, prereleases=True):
            yield _problem(needed, found.version)
        for extra in needed.requirement.extras or {""}:
            for requirement in map(Requirement, found.requires or ()):
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                    waiting.append(_Needed(requirement, found.name, extra))


def _problem(needed: _Needed, found: str) -> Finding:
    requirement = needed.requirement
    expected = f"{requirement.name}{requirement.specifier}"
    by, package = needed.by, expected
    if needed.extra:
        by += f"[{needed.extra}]"
    if needed.by == OURS:
        package = f".[{needed.extra}]" if needed.extra else "."
    advice = f"pip install -c constraints.txt '{package}'"
    for name, extra in EXTRAS.items():
        if (needed.by, needed.extra) == (OURS, extra):
            by += f", which {variable(name)} needs,"
            advice += f" (images: --build-arg EXTRAS), or unset {variable(name)}"
    return fault(requirement.name, f"{by} expected {expected}, found {found}", advice)


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
