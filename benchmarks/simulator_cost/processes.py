"""What a process with one simulator costs before and between steps: seconds to start, reset and switch, and memory.

Each is measured in a process of its own, because only there is memory what one simulator takes.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TASKS = 3  # how many tasks are visited


def private_mib() -> float:
    """Memory that goes away with this process (unique set size), MiB."""
    fields = Path("/proc/self/smaps_rollup").read_text().split("\n")[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in fields if line}
    return (sizes["Private_Clean"] + sizes["Private_Dirty"]) / 1024


def resident_mib() -> float:
    """Memory of this process with what it shares, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_here(suite: str, task: int, assets: str, case: str) -> dict[str, float]:
    """Numbers of one case ("stock" or a renderer of ours); run it in a fresh process.

    Returns:
        start_s: construction and first reset, imports done. reset_s: another reset of the same task.
        switch_cold_s: reset to a task for the first time; switch_warm_s: to one that was seen before.
        private_mib, resident_mib: with one task. task_mib: what each further task adds.
    """
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.libero.adapter import LiberoSimulator
    from avavla_ray.simulators.libero.assets import resolve_assets
    from avavla_ray.simulators.libero.installation import prepare

    prepare()
    import avavla_ray.simulators.libero.fast  # noqa: F401
    from benchmarks.simulator_cost.turns import Stock

    tasks = [task + index for index in range(TASKS)]
    held: list[Stock] = []
    if case == "stock":
        path = resolve_assets(assets, suite).path

        def reset(index: int) -> None:
            if held and held[0].task == index:
                held[0].reset()
                return
            while held:
                held.pop().close()
            held.append(Stock(suite, index, path, 128))
    else:
        simulator = LiberoSimulator(SimulatorConfig(suite, assets=assets, render=case))

        def reset(index: int) -> None:
            simulator.reset(index, initial_state=0)

    def seconds(index: int) -> float:
        start = time.process_time()
        reset(index)
        return time.process_time() - start

    result = {"start_s": seconds(tasks[0])}
    result |= {"reset_s": seconds(tasks[0]), "private_mib": private_mib(), "resident_mib": resident_mib()}
    cold = [seconds(index) for index in tasks[1:]]
    result["task_mib"] = (private_mib() - result["private_mib"]) / len(cold)
    result["switch_cold_s"] = sum(cold) / len(cold)
    result["switch_warm_s"] = sum(seconds(index) for index in tasks[:-1]) / (len(tasks) - 1)
    # robosuite's own exit handler takes the display away before its renderers.
    while held:
        held.pop().close()
    gc.collect()
    return result


def call_apart(function: str, *arguments: Any) -> Any:
    """What `function` ("module:name") returns for `arguments`, both as JSON, in a fresh process."""
    module, name = function.split(":")
    code = f"import json, sys; from {module} import {name}; print(json.dumps({name}(*json.loads(sys.argv[1]))))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    # A simulator may have printed before.
    return json.loads(done.stdout.splitlines()[-1])


def measure_apart(suite: str, task: int, assets: str, case: str) -> dict[str, Any]:
    """`measure_here` in a process of its own."""
    return call_apart(f"{__spec__.name}:measure_here", suite, task, assets, case)
