"""Carries out the instructions of a Dockerfile, each in a layer of its own, in roots of `tests.image.machine`."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.image import machine
from tests.image.dockerfile import Dockerfile, Instruction, Stage, expand, read_dockerfile
from tests.image.image import Image, Layer, upper_folder
from tests.image.machine import Mount

IGNORED = shutil.ignore_patterns("__pycache__")


class BuildError(Exception):
    """An instruction failed; the message says what it printed."""


class Builder:
    """Builds stages of one Dockerfile; what an earlier one built with the same instructions and arguments is kept.

    Args:
        file: the Dockerfile.
        context: the folder that COPY takes from.
        work: an empty folder, or that of an earlier builder of the same context.
        arguments: values of build arguments, in place of the file's own.
        left_out: texts of RUN instructions that are not carried out.
    """

    def __init__(
        self, file: Path, context: Path, work: Path, arguments: Mapping[str, str], left_out: Collection[str] = ()
    ) -> None:
        self._dockerfile: Dockerfile = read_dockerfile(file)
        self._context = context
        self._work = work
        self._given = arguments
        self._left_out = left_out
        self._images: dict[str, Image] = {}
        work.mkdir(parents=True, exist_ok=True)

    def build(self, name: str | None = None) -> Image:
        """Build a stage and all that it needs; the last one if no other is named."""
        stage = self._dockerfile.stages[-1] if name is None else self._dockerfile.stage(name)
        if stage.name not in self._images:
            image = self._base(stage)
            for instruction in stage.instructions:
                image = self._carry_out(instruction, image)
            self._images[stage.name] = image
        return self._images[stage.name]

    def _base(self, stage: Stage) -> Image:
        base = expand(stage.base, {**self._dockerfile.arguments, **self._given})
        if base in {other.name for other in self._dockerfile.stages}:
            return replace(self.build(base), arguments={})
        layer = self._layer(["base"], "the base image", lambda upper: machine.make_base(upper / "files"))
        machine_alone = Image((layer,), {"PATH": machine.BASE_PATH}, {}, {})
        python = self._layer(
            ["python"], "the base image's Python", self._command(machine_alone, machine.python_command())
        )
        return replace(machine_alone, layers=(layer, python))

    def _carry_out(self, instruction: Instruction, image: Image) -> Image:
        variables = {**image.variables, **image.arguments}
        match instruction.word:
            case "RUN" if instruction.text in self._left_out:
                return image
            case "RUN" | "COPY":
                made = self._run(instruction, image) if instruction.word == "RUN" else self._copy(instruction, image)
                return replace(image, layers=(*image.layers, made))
            case "ARG":
                (name,) = (word.split("=")[0] for word in instruction.words())
                values = {**self._dockerfile.arguments, **instruction.pairs(), **self._given}
                return replace(image, arguments={**image.arguments, name: values[name]})
            case "ENV":
                pairs = {name: expand(value, variables) for name, value in instruction.pairs().items()}
                return replace(image, variables={**image.variables, **pairs})
            case "LABEL":
                pairs = {name: expand(value, variables) for name, value in instruction.pairs().items()}
                return replace(image, labels={**image.labels, **pairs})
            case "WORKDIR":
                return replace(image, folder=instruction.text, layers=(*image.layers, self._make(instruction, image)))
            case "USER":
                return replace(image, user=instruction.text)
            case "SHELL":
                return replace(image, shell=tuple(instruction.command()))
            case "ENTRYPOINT":
                return replace(image, entrypoint=tuple(instruction.command()))
            case "HEALTHCHECK":
                return replace(image, healthcheck=tuple(instruction.command()))
            case "EXPOSE":
                return image
        raise ValueError(f"an instruction that is not known here: {instruction.word} {instruction.text}")

    def _run(self, instruction: Instruction, image: Image) -> Layer:
        mounts = []
        if "mount" in instruction.flags:
            mount = dict(part.split("=", 1) for part in instruction.flags["mount"].split(","))
            assert mount["type"] == "bind"
            mounts = [Mount(self._find(mount["from"], mount["source"]), mount["target"])]

        write = self._command(image, [*image.shell, instruction.text], mounts)
        made_by = f"RUN {instruction.text}"
        return self._layer(self._key(image, made_by, json.dumps(image.build_variables())), made_by, write)

    def _command(self, image: Image, command: Sequence[str], mounts: Sequence[Mount] = ()) -> Callable[[Path], None]:
        """What writes a layer by running a command."""

        def write(upper: Path) -> None:
            variables = image.build_variables()
            process = machine.run(command, image.roots(), upper, variables, image.folder, mounts, image.user)
            printed, _ = process.communicate()
            if process.returncode != 0:
                raise BuildError(f"{shlex.join(command)} ended with code {process.returncode}:\n{printed}")
            for mount in mounts:
                (upper / "files" / mount.target.lstrip("/")).rmdir()

        return write

    def _copy(self, instruction: Instruction, image: Image) -> Layer:
        *sources, target = instruction.words()
        origin = instruction.flags.get("from")

        def write(upper: Path) -> None:
            place = upper / "files" / (Path(image.folder) / target).relative_to("/")
            for source in sources:
                found = self._find(origin, source) if origin else self._context / source
                if found.is_dir() and origin:
                    # Layers are written once, so that two of them can share a file.
                    shutil.copytree(found, place, symlinks=True, copy_function=os.link)
                elif found.is_dir():
                    shutil.copytree(found, place, ignore=IGNORED)
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(found, place)

        made_by = f"COPY {f'--from={origin} ' if origin else ''}{instruction.text}"
        copied = self._key(self.build(origin)) if origin else []
        return self._layer(self._key(image, *copied, made_by), made_by, write)

    def _make(self, instruction: Instruction, image: Image) -> Layer:
        made_by = f"WORKDIR {instruction.text}"
        folder = instruction.text.lstrip("/")
        return self._layer(
            self._key(image, made_by), made_by, lambda upper: (upper / "files" / folder).mkdir(parents=True)
        )

    def _find(self, stage: str, path: str) -> Path:
        """A folder of a stage, which a single layer of it has to hold."""
        places = [layer.files / path.lstrip("/") for layer in self.build(stage).layers]
        (found,) = (place for place in places if place.exists())
        return found

    def _layer(self, key: Sequence[str], made_by: str, write: Callable[[Path], None]) -> Layer:
        """What `write` writes, unless a layer of the same key is there."""
        folder = self._work / hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
        record = folder / "layer.json"
        if not record.exists():
            # What is left of an instruction that failed.
            shutil.rmtree(folder, ignore_errors=True)
            started = time.monotonic()
            write(upper_folder(folder))
            record.write_text(json.dumps({"made_by": made_by, "seconds": time.monotonic() - started}), encoding="utf-8")
        return Layer(folder / "files", **json.loads(record.read_text(encoding="utf-8")))

    def _key(self, image: Image, *further: str) -> list[str]:
        return [*(layer.files.parent.name for layer in image.layers), *further]
