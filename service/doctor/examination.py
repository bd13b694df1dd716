"""All checks, one after the other, whatever becomes of one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from service.doctor import (
    bundles,
    cluster,
    cuda,
    descriptors,
    folders,
    kernels,
    keys,
    labels,
    libraries,
    memory,
    module,
    packages,
    ports,
    processors,
    settings,
    wheels,
)
from service.doctor.context import Context
from service.doctor.findings import Finding, State, fault


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: of it.
        looks_at: what, in the words of the table in ``service/README.md``.
        faults: what a fault of it means, in the same words.
        look: finds it.
    """

    name: str
    looks_at: str
    faults: str
    look: Callable[[Context], Iterable[Finding]]


@dataclass(frozen=True)
class Examined:
    """A check and what it found."""

    check: Check
    findings: tuple[Finding, ...]


CHECKS = (
    Check(
        "settings",
        "flags and XMC_ variables",
        "one is unknown, cannot be read or contradicts another: run ends with code 2",
        settings.look,
    ),
    Check(
        "module",
        "the module service, whose name other packages have as well",
        "a part of it is another package's, or another package writes into its folder",
        module.look,
    ),
    Check(
        "wheels",
        "which wheels own the modules onnxruntime, faiss and service",
        "two own one, and the second has overwritten files of the first",
        wheels.look,
    ),
    Check(
        "packages",
        "Python, and every package that the service needs with these settings, those that they need too",
        "one is missing, or of a version that pyproject.toml or another package rules out",
        packages.look,
    ),
    Check(
        "libraries",
        "imports of the compiled libraries; ONNX Runtime's providers, FAISS's build",
        "one cannot be imported, or ends the process that imports it",
        libraries.look,
    ),
    Check(
        "cuda",
        "unless the device is cpu: driver, CUDA libraries, and whether ONNX Runtime can use a GPU",
        "device cuda cannot be had; with auto these are notes, for then the CPU computes",
        cuda.look,
    ),
    Check(
        "processors",
        "threads and runners of a model, and the processors that affinity and control group allow",
        "more threads than processors: they are throttled and wait for each other",
        processors.look,
    ),
    Check(
        "memory",
        "the control group's memory limit, and what the bundles and their processes take",
        "the limit is less: the kernel ends a process, or reads files from the disk again and again",
        memory.look,
    ),
    Check(
        "bundles",
        "manifests and signatures of the bundles, and whether their files can be read; xmc-serve check does the rest",
        "a bundle is not there, not to be read, unsigned, given twice, or cannot be served on this device",
        bundles.look,
    ),
    Check(
        "cluster",
        "with --ray: whether something listens where the cluster is said to be",
        "this machine is no node of a cluster, or nothing listens there",
        cluster.look,
    ),
    Check(
        "labels",
        "the folder and the journals of labels that change",
        "a change would be refused with 507, or a damaged journal stops the start",
        labels.look,
    ),
    Check(
        "folders",
        "folders of models, of the prediction log and for temporary files, by using them; and who the user is",
        "it is not there, or the user may not do that",
        folders.look,
    ),
    Check(
        "kernels",
        "where numba keeps compiled kernels, and whether some are there",
        "it may not be written to, or there is no such place: every start compiles them anew, which takes seconds",
        kernels.look,
    ),
    Check(
        "keys",
        "files of keys: contents, and who may read and write them",
        "it cannot be read, a line is none of a key's, or others may add keys to it",
        keys.look,
    ),
    Check(
        "ports",
        "each port, by listening on it for a moment, and who has it",
        "something else listens there, the address is not this machine's, or the user may not listen on it",
        ports.look,
    ),
    Check(
        "descriptors",
        "the limit of open files, which each connection counts against",
        "the hard limit, up to which a server raises its own, is less than 1,024",
        descriptors.look,
    ),
)


def examine(context: Context, checks: Sequence[Check] = CHECKS) -> list[Examined]:
    """What all checks find."""
    return [Examined(check, tuple(_findings(check, context))) for check in checks]


def is_healthy(examined: Iterable[Examined]) -> bool:
    """Whether there is no fault."""
    return all(finding.state is not State.FAULT for one in examined for finding in one.findings)


def _findings(check: Check, context: Context) -> Iterator[Finding]:
    """What a check finds, and that it could not look where it fails itself."""
    try:
        yield from check.look(context)
    except Exception as error:
        found = f"could not look: {type(error).__name__}: {error}"
        yield fault(check.name, found, "mend what other checks name first; if this stays, it is a bug of xmc-serve")
