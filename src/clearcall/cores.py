"""How many cores this process may use, work that is done on all of them, and what machine it runs on."""

import hashlib
import os
import platform
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

_Item = TypeVar("_Item")


def available_cores() -> int:
    """Return the number of cores that this process is allowed to run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[_Item], object], items: Iterable[_Item]) -> None:
    """Do the work for each item, on as many threads as OpenCV may take, and return when all of it is done.

    For work that lets go of Python's lock, as OpenCV and large arrays do, and that writes where no other item does.
    This thread takes items like the others, and all of them while the others have no core. Raises what the work raises.
    """
    import cv2  # noqa: PLC0415  # what only counts cores needs none

    left = deque(items)

    def take() -> None:
        while left:
            try:
                item = left.popleft()
            except IndexError:  # another was quicker
                return
            work(item)

    helpers = [_helpers().submit(take) for _ in range(min(cv2.getNumThreads(), len(left)) - 1)]
    try:
        take()
    finally:
        left.clear()
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, available_cores() - 1), thread_name_prefix="spread")


if hasattr(os, "register_at_fork"):  # a fork has none of its parent's threads
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def machine() -> dict[str, Any]:
    """Describe this machine: processor, cores, memory in GiB, system, and an id that differs between machines.

    The id is a hash of host name, machine id, processor and cores: an fps may be compared only where it is the same.
    """
    import psutil  # noqa: PLC0415  # only measuring needs it

    cpu, flags = platform.processor() or platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                cpu = value.strip()
            elif key.strip() == "flags":
                flags = value
    except OSError:
        pass  # not Linux: the processor's short name must do
    known = set(flags.split())
    try:
        machine_id = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        machine_id = ""
    cores = available_cores()
    identity = "/".join([platform.node(), machine_id, cpu, str(cores)])
    return {
        "id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "cpu": cpu,
        "cores": cores,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "instructions": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if name in known],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
