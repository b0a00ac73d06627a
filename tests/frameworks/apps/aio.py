"""A server with aiohttp."""
import os

from aiohttp import web


async def answer(request):
    """One request."""
    return web.Response(text=f"pid={os.getpid()}")


app = web.Application()
app.add_routes([web.get("/", answer)])
web.run_app(app, port=int(os.environ["PORT"]), print=None)
