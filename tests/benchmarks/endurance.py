"""What the memory of a running server does over very many requests.

    xmc-serve run --bundle BUNDLE
    python -m tests.benchmarks.endurance http://127.0.0.1:8000 --requests 1000000

Printed is a line for about every tenth of the requests: how many were answered, the resident memory of the process that
speaks HTTP and that of all models, and what both have gained since the first line.
"""

from __future__ import annotations

import argparse
import re
import urllib.request

from service.measuring.bench import Plan, bench

CONNECTIONS = 64
SECONDS = 5.0
LINES = 10


def main() -> None:
    """Ask until there were enough answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=1_000_000)
    chosen = parser.parse_args()
    plan = Plan(chosen.url, concurrency=(CONNECTIONS,), seconds=SECONDS)
    bench(plan)  # whatever is allocated once is allocated now
    print("  answered    http MB   models MB   gained MB")
    answered, due, first = 0, 0, resident_mb(chosen.url)
    while True:
        if answered >= due:
            http, models = resident_mb(chosen.url)
            print(f"{answered:10,} {http:10.1f} {models:11.1f} {http + models - sum(first):11.1f}", flush=True)
            due += chosen.requests // LINES
        if answered >= chosen.requests:
            return
        (figures,) = bench(plan)
        answered += figures.statuses.get("200", 0)


def resident_mb(url: str) -> tuple[float, float]:
    """Resident memory of the process that speaks HTTP, and of all models."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        text = response.read().decode()
    http, models = (
        sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)) / 1e6
        for name in ("process_resident_memory_bytes", "xmc_model_resident_bytes")
    )
    return http, models


if __name__ == "__main__":
    main()
