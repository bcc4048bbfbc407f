"""A pool of processes on a cluster: the workers of a Dask scheduler."""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from clearcall.core.errors import UserError

try:
    from distributed import Client, KilledWorker, Worker, WorkerPlugin
    from distributed.comm import connect
    from distributed.security import Security
except ImportError:
    raise UserError("CLEARCALL_SCHEDULER is set, but Dask is not installed: run `make cluster`, or unset it") from None

_JOIN_SECONDS = 15


class _Prepare(WorkerPlugin):  # type: ignore[misc]  # Any, see pyproject.toml
    """Makes each worker, also one that comes later, work in this process's folder."""

    name = "clearcall"

    def __init__(self) -> None:
        self._folder = os.getcwd()  # noqa: PTH109  # one that Dask need not parse

    def setup(self, worker: Worker) -> None:
        if worker.state.nthreads > 1:
            raise UserError(f"a Dask worker has {worker.state.nthreads} threads: start workers with `--nthreads 1`")
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise UserError(
                f"a Dask worker cannot use the folder {self._folder}, which all must share: {error}"
            ) from None


async def _reach(address: str) -> None:
    # Before a client: one that gets no answer, or the wrong one, may hang for good.
    comm = await connect(address, _JOIN_SECONDS, **Security().get_connection_args("client"))
    await comm.close()


@contextmanager
def cluster_pool(address: str) -> Iterator[Executor]:
    """Yield the workers of the scheduler at `address`, such as tcp://10.0.0.1:8786, as a pool.

    The work of a worker that ends is done by another. Raises UserError if there is no scheduler or no worker within 15
    s each, if a worker has several threads or not the present folder, or if one task ended several workers.
    """
    try:
        asyncio.run(asyncio.wait_for(_reach(address), _JOIN_SECONDS))
        client = Client(address, timeout=_JOIN_SECONDS)
    except (OSError, ValueError, TypeError) as error:  # TypeError: no certificates
        raise UserError(
            f"no Dask scheduler at CLEARCALL_SCHEDULER={address} ({str(error) or 'no answer'}): start one with "
            "`dask scheduler`, or unset it to use this machine alone"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, _JOIN_SECONDS)
        except TimeoutError:
            raise UserError(
                f"the Dask scheduler at {address} has no workers: start `dask worker {address} --nworkers auto "
                "--nthreads 1` on each machine"
            ) from None
        client.register_plugin(_Prepare())
        try:
            yield client.get_executor(pure=False)
        except KilledWorker as error:
            raise UserError(f"one task ended several Dask workers, perhaps for want of memory: {error}") from None
