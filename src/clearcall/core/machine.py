"""How many cores this process may use, and what machine it runs on."""

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearcall.core.errors import UserError


def available_cores() -> int:
    """Return the number of cores that this process is allowed to run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hold_one_core() -> None:
    """Keep this process, its threads and its child processes from now on to the last core that it may run on.

    Threads that libraries have started before go on as they are. Raises UserError on a system that cannot do it.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise UserError(f"--low-power: {platform.system()} cannot hold a program to one core; use --threads 1 instead")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def processor() -> tuple[str, str]:
    """Return the processor's name and instruction flags, "" where unknown."""
    name, flags = platform.processor() or platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = value.strip()
    except OSError:
        pass  # not Linux: the processor's short name must do
    return name, flags


def machine_id() -> str:
    """Return a hash of host name, machine id, processor and cores, which differs between machines."""
    try:
        given = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        given = ""
    identity = "/".join([platform.node(), given, processor()[0], str(available_cores())])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def machine() -> dict[str, Any]:
    """Describe this machine: processor, cores, memory in GiB, system, and its id.

    An fps may be compared only where the id is the same.
    """
    import psutil  # noqa: PLC0415  # only measuring needs it

    name, flags = processor()
    known = set(flags.split())
    return {
        "id": machine_id(),
        "cpu": name,
        "cores": available_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if flag in known],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def processor_told(here: Mapping[str, Any]) -> str:
    """Say which processor a machine (of `machine`) has, with how many cores and which wide instructions."""
    instructions = ", ".join(here["instructions"]) or "no wide instructions"
    cores = f"{here['cores']} core" + ("s" if here["cores"] > 1 else "")
    return f"{here['cpu']} with {cores} ({instructions})"
