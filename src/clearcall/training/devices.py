"""Join the training processes of several devices and machines."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public by its documentation
from torch.nn.parallel import DistributedDataParallel

from clearcall.core.errors import UserError
from clearcall.core.processes import end_with_parent

JOIN_SECONDS = 600.0
_POLL_SECONDS, _GRACE_SECONDS = 0.2, 10.0
_RESUME = "Run the same command again: training resumes from its last checkpoint"
_LOOPBACK = "127.0.0.1"


class JoinedProcesses(DDPStrategy):
    """DDP whose processes say whom they wait for, for `JOIN_SECONDS` at most.

    On one machine they listen on the loopback interface alone; on several, the store does on all interfaces. If one of
    those on this machine ends with an error, all do.
    """

    def _configure_launcher(self) -> None:
        if self.cluster_environment is None:
            raise RuntimeError("a strategy without an environment")
        self._launcher = _Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_environment(self) -> None:
        """Join the process group, which the base class then finds ready."""
        if self.local_rank > 0:
            end_with_parent()
        environment = self.cluster_environment
        if environment is not None and not isinstance(environment, TorchElasticEnvironment):  # which joins them itself
            dist.init_process_group(
                dist.get_default_backend_for_device(self.root_device),
                store=self._join(environment),
                rank=environment.global_rank(),
                world_size=environment.world_size(),
                device_id=None if self.root_device.type == "cpu" else self.root_device,
            )
            if self.root_device.type != "cpu":
                atexit.register(dist.destroy_process_group)  # or NCCL warns
        super().setup_environment()

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        """Wrap a network in the layout that DDP wants.

        It cannot broadcast a buffer in channels_last, and warns of the strides of weights that are contiguous, too.
        """
        for tensor in (*module.buffers(), *(one for one in module.parameters() if one.is_contiguous())):
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
        return super().setup_module(module)

    def _join(self, environment: ClusterEnvironment) -> TCPStore:
        """Return the store once all processes have joined; raise UserError at the timeout."""
        if self.num_nodes == 1:
            host = _LOOPBACK
            for loopback in {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
                os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)
            mend = "Run the same command again; if that fails too, train on one device"
        else:
            host = environment.main_address
            mend = (
                f"Run the same command on all {self.num_nodes} machines, with one MASTER_ADDR and MASTER_PORT, which "
                f"reach the first, and with NODE_RANK from 0 to {self.num_nodes - 1}; or set `nodes: 1` in params.yaml"
            )
        port, world, joined = environment.main_port, environment.world_size(), -1
        deadline = time.monotonic() + JOIN_SECONDS
        store: TCPStore | None = None
        while joined < world:
            if store is None and (store := self._open_store(host, port, environment)) is not None:
                store.add("joined", 1)
            try:
                there = 0 if store is None else store.add("joined", 0)
            except RuntimeError:
                raise UserError(f"the first training process, at {host}:{port}, has ended. {mend}") from None
            if there != joined and self.num_nodes > 1 and self.local_rank == 0:
                waits = f"waiting at {host}:{port} for training processes: {there} of {world} have joined"
                print(f"{waits}. {mend}" if joined < 0 else waits, file=sys.stderr, flush=True)
            joined = there
            if joined < world:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"after {JOIN_SECONDS:g} s {joined} of {world} training processes have joined at "
                        f"{host}:{port}. {mend}"
                    )
                # Here and not within torch, where no signal would be heeded.
                time.sleep(_POLL_SECONDS)
        if store is None:
            raise RuntimeError("a group without processes")
        return store

    def _open_store(self, host: str, port: int, environment: ClusterEnvironment) -> TCPStore | None:
        """Serve or connect to the group's store; return None if nothing listens yet."""
        world = environment.world_size()
        if environment.global_rank() > 0:
            try:
                socket.create_connection((host, port), timeout=1).close()
            except OSError:
                return None
            return TCPStore(host, port, world, is_master=False, wait_for_workers=False)
        try:
            listener = socket.create_server((_LOOPBACK, port)).detach() if self.num_nodes == 1 else None
            return TCPStore(host, port, world, is_master=True, wait_for_workers=False, master_listen_fd=listener)
        except (OSError, RuntimeError) as error:
            raise UserError(f"cannot listen at {host}:{port}, choose another MASTER_PORT: {error}") from None


class _Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine and watches them."""

    def _call_children_scripts(self) -> None:
        super()._call_children_scripts()
        # Fabric's own observer, given none, ends: it would kill this process without a word.
        processes, self.procs = self.procs, []
        threading.Thread(target=_end_with_any, args=(processes,), daemon=True, name="training-watch").start()


def _end_with_any(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End this process soon after another of its training has failed or was killed; the rest end with this one."""
    while not any(codes := [process.poll() for process in processes]):
        if None not in codes:
            return
        time.sleep(_POLL_SECONDS)
    rank, code = next((rank, code) for rank, code in enumerate(codes, 1) if code)
    print(
        f"error: training process {rank} on this machine has ended with code {code}, so that all were stopped. "
        f"{_RESUME}",
        file=sys.stderr,
        flush=True,
    )
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # it may hang in a collective; Windows has none


@contextmanager
def lost_process_told() -> Iterator[None]:
    """Raise UserError where a collective fails because another process of the training has ended."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        time.sleep(3 * _POLL_SECONDS)  # meanwhile that process, on the same machine, is told of or ends this one
        raise UserError(f"another training process has ended, see what it printed. {_RESUME} ({error})") from None
