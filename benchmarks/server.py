"""A quick local web server over a folder, in a process of its own; may add latency to every answer."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web


@contextmanager
def serving(folder: Path, latency: float = 0.0) -> Iterator[str]:
    """The URL under which `folder` is served, for as long as the block runs."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(str(folder), latency, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(folder: str, latency: float, ready: multiprocessing.connection.Connection) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if latency:
            await asyncio.sleep(latency)
        path = Path(folder) / request.match_info["path"]
        if not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ready.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())
