"""CUDA: from the driver over the libraries to a device that computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from service.doctor.child import ask
from service.doctor.context import Context
from service.doctor.driver import Driver, DriverError, find_driver
from service.doctor.findings import Finding, fault, note, ok
from service.doctor.probes import try_cuda
from service.settings import variable

# Of the CUDA that wheels of the gpu extra are built for, where there is none of them to ask.
CUDA_MAJOR = 13

Judge = Callable[[str, str, str], Finding]

ON_CPU = f"or set {variable('device')} to cpu"
GIVE_GPU = (
    "give this process a GPU (docker run --gpus all, nvidia.com/gpu: 1 in Kubernetes, CUDA_VISIBLE_DEVICES), " + ON_CPU
)
FLAVOUR = (
    "install the gpu flavour in place of the other: pip uninstall --yes onnxruntime, then pip install "
    "-c constraints.txt '.[serve,gpu]', " + ON_CPU
)
LIBRARIES = "pip install --force-reinstall -c constraints.txt 'onnxruntime-gpu[cuda,cudnn]', which brings them"


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    device = context.settings.device
    if device == "cpu":
        yield ok("device", "cpu: CUDA is not asked for")
        return
    judge = fault if device == "cuda" else note
    try:
        driver = find_driver()
    except DriverError as error:
        if device == "auto":
            yield ok("device", f"auto, which is the CPU here: {error}")
            return
        yield fault("driver", str(error), f"install NVIDIA's driver on the host and {GIVE_GPU}")
        driver = None
    (built_for, missing, loaded, reason), end = _asked()
    if driver is not None:
        yield _age(driver, int(built_for.partition(".")[0] or CUDA_MAJOR), judge)
    if missing:
        yield judge("CUDA libraries", f"expected to load all, failed: {'; '.join(missing)}", LIBRARIES)
    elif loaded:
        yield ok("CUDA libraries", ", ".join(loaded))
    if end is not None:
        yield judge("ONNX Runtime", f"the process that tries CUDA {end}", f"see what else is named; {LIBRARIES}")
    elif reason is None:
        yield ok("device", f"{device}: ONNX Runtime, built for CUDA {built_for}, can use it")
    else:
        yield judge("device", f"{device}: {reason}", GIVE_GPU if built_for else FLAVOUR)


def _asked() -> tuple[tuple[str, list[str], list[str], str | None], str | None]:
    """Answers of `try_cuda`, nothing in the place of those that it did not come to, and how it ended if not well."""
    answers, end = ask(try_cuda)
    return (*answers, *("", [], [], None)[len(answers) :]), end


def _age(driver: Driver, major: int, judge: Judge) -> Finding:
    if driver.cuda >= (major, 0):
        return ok("driver", str(driver))
    advice = f"install a driver for CUDA {major} on the host"
    return judge("driver", f"expected one that speaks CUDA {major}, found {driver}", advice)
