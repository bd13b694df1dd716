"""A root folder made of layers, as a container has it, without a container engine: mounts, namespaces and chroot.

What an image would find in its base image - a Python, a shell, certificates - is this machine's, mounted so that nobody
can write it. Everything else comes from layers, which are folders. Needs root on Linux.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Where the base image's Python would be; /usr is this machine's.
PYTHON = "/python"
BASE_PATH = f"{PYTHON}/bin:/usr/local/bin:/usr/bin:/bin"
PROGRAMS = ("unshare", "nsenter", "chroot", "setpriv", "mount", "ip", "bash")


@dataclass(frozen=True)
class Mount:
    """A folder that the root gets beside its layers; not to be written unless it says so."""

    source: Path
    target: str
    writable: bool = False


def missing() -> str:
    """Why no such root can be made here, or nothing."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if sys.platform != "linux" or os.geteuid() != 0:
        return "they mount folders, which needs root on Linux"
    if absent:
        return f"there is no {' and no '.join(absent)}"
    script = "cd $(mktemp -d) && mkdir l u w m && mount -t overlay x -o lowerdir=l,upperdir=u,workdir=w m"
    probe = subprocess.run(["unshare", "--mount", "bash", "-c", script], capture_output=True, text=True, check=False)
    return probe.stderr.strip()


def make_base(folder: Path) -> None:
    """Write the lowest layer: places for what is mounted from this machine."""
    for place in ("tmp", "dev", "proc", *(str(path).lstrip("/") for path in _of_this_machine())):
        (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    for link in (path for path in Path("/").iterdir() if path.is_symlink()):
        (folder / link.name).symlink_to(link.readlink())


def python_command() -> list[str]:
    """Makes the base image's Python, with a pip that may install into it, when it is run in the root."""
    return [sys._base_executable, "-m", "venv", PYTHON]  # type: ignore[attr-defined]


def run(
    command: Sequence[str],
    layers: Sequence[Path],
    upper: Path | None,
    environment: Mapping[str, str],
    folder: str = "/",
    mounts: Sequence[Mount] = (),
    user: str = "0:0",
) -> subprocess.Popen[str]:
    """Start a command in a root of its own, with a network of its own that knows no other machine unless it may write.

    Args:
        command: program and arguments; its process id is the one that is returned.
        layers: the root's folders, the highest first.
        upper: takes what is written; None for a root that cannot be written, but for an empty ``/tmp``.
        environment: all variables.
        folder: where it starts.
        mounts: what else is in the root; where nothing can be written, their places must be there.
        user: numbers of user and group. Others than root have no capabilities, and can gain none.
    """
    lines = [*_root(layers, upper, mounts), "exec " + shlex.join(["chroot", _ROOT, *_as(user)])]
    lines[-1] += " " + shlex.join(_start(command, environment, folder))
    namespaces = ["--mount"] if upper is not None else ["--mount", "--net"]
    process = ["unshare", *namespaces, "bash", "-euc", "\n".join(lines)]
    return subprocess.Popen(process, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def execute(
    process: subprocess.Popen[str],
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: str = "/",
    user: str = "0:0",
) -> subprocess.CompletedProcess[str]:
    """Run another command in the root and the network of a running one, as ``docker exec`` does."""
    enter = ["nsenter", "--target", str(process.pid), "--mount", "--net", "--root"]
    arguments = [*enter, *_as(user), *_start(command, environment, folder)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


_ROOT = "/mnt"  # in a mount namespace of its own: nobody else sees what is mounted there


def _of_this_machine() -> list[Path]:
    """Folders that stand for the base image, and those that pip's settings name."""
    wheels = [Path(place) for place in os.environ.get("PIP_FIND_LINKS", "").split()]
    homes = [Path(sys.base_prefix)] if not Path(sys.base_prefix).is_relative_to("/usr") else []
    plain = [path for name in ("bin", "lib", "lib64", "sbin") if (path := Path("/", name)).is_dir()]
    folders = [Path("/usr"), Path("/etc"), *(path for path in plain if not path.is_symlink()), *homes, *wheels]
    return [path for path in folders if path.is_dir()]


def _root(layers: Sequence[Path], upper: Path | None, mounts: Sequence[Mount]) -> list[str]:
    """Shell lines that mount a root."""
    options = f"lowerdir={':'.join(map(str, layers))}"
    if upper is not None:
        options += f",upperdir={upper / 'files'},workdir={upper / 'work'}"
    elif len(layers) == 1:
        raise ValueError("a root that cannot be written needs two layers")
    lines = [f"mount -t overlay layers -o {shlex.quote(options)} {_ROOT}"]
    for path in _of_this_machine():
        lines += _bind(path, f"{_ROOT}{path}")
    lines += [f"mount --rbind /dev {_ROOT}/dev", f"mount --bind /proc {_ROOT}/proc"]
    if upper is None:
        lines += [f"mount -t tmpfs -o mode=1777 tmp {_ROOT}/tmp", "ip link set lo up"]
    for mount in mounts:
        if upper is not None:
            lines.append(shlex.join(["mkdir", "-p", f"{_ROOT}{mount.target}"]))
        lines += _bind(mount.source, f"{_ROOT}{mount.target}", mount.writable)
    return lines


def _bind(source: Path, target: str, writable: bool = False) -> list[str]:
    lines = ["mount --bind " + shlex.join([str(source), target])]
    return lines if writable else [*lines, f"mount -o remount,bind,ro {shlex.quote(target)}"]


def _as(user: str) -> list[str]:
    uid, gid = user.split(":")
    if uid == "0":
        return []
    dropped = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    return ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", *dropped]


def _start(command: Sequence[str], environment: Mapping[str, str], folder: str) -> list[str]:
    variables = [f"{name}={value}" for name, value in environment.items()]
    inner = f"cd {shlex.quote(folder)} && exec {shlex.join(command)}"
    return ["env", "-i", *variables, "bash", "-c", inner]
