"""The answer of ``xmc-serve plan``."""

from __future__ import annotations

import argparse
from dataclasses import fields

from service.planning.capacity import Pod, capacity_of
from service.planning.constants import load
from service.planning.report import json_of, text_of
from service.planning.workload import Wishes


def answer(chosen: argparse.Namespace) -> str:
    """The plan that was asked for.

    Raises:
        SettingsError: sizes contradict each other or the method.
    """
    wishes = Wishes(**{field.name: getattr(chosen, field.name) for field in fields(Wishes)})
    pod = Pod(chosen.device, chosen.cpu, chosen.memory, chosen.utilisation)
    constants = load()
    shape = json_of if chosen.json else text_of
    return shape(capacity_of(wishes, chosen.qps, pod, constants), constants)
