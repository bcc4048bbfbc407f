"""How many cores this process may use, and what machine it runs on."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any


def available_cores() -> int:
    """Return the number of cores that this process is allowed to run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
