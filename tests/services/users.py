"""The slow services of the tutorial that are asked many at a time: users, tasks, teams, reports.

Each answer takes the time that its query names (`?seconds=0.2`) and has the status that it names (`?status=500`).
`/journal` tells what was begun, finished, and given up because the caller had left.
"""

import asyncio
import functools

import fastapi

router = fastapi.APIRouter()
journal = []


async def work(request: fastapi.Request, seconds: float = 1.0, status: int = 200):
    """Takes its time, unless the caller leaves. A dependency of every slow route."""
    note("started", request)
    leaving = asyncio.ensure_future(left(request))
    done, _ = await asyncio.wait([leaving], timeout=seconds)
    leaving.cancel()
    if done:
        note("cancelled", request)
        raise fastapi.HTTPException(499)
    note("finished", request)
    if status != 200:
        raise fastapi.HTTPException(status, "as asked for")


async def left(request):
    # uvicorn does not end a handler whose client has gone; it is told by this message, after those with the body.
    while (await request.receive())["type"] != "http.disconnect":
        pass


def note(event, request):
    journal.append({"event": event, "path": request.url.path})


working = [fastapi.Depends(work)]


@router.get("/users/{number}", dependencies=working)
async def user(number: int):
    return {"id": number, "name": "User %d" % number, "manager": number + 1}


@router.get("/tasks/{name}", dependencies=working)
async def task(name: str):
    return "Task %s" % name


@router.get("/teams/{name}", dependencies=working)
async def team(name: str):
    return {"team": name, "members": [3, 1, 2]}


@router.get("/greetings/{name}", dependencies=working)
async def greeting(name: str):
    return {"greeting": "Hello %s" % name}


@router.get("/report", dependencies=working)
async def report():
    return {"rows": 3}


@router.get("/list")
async def long_list(megabytes: int):
    return fastapi.Response(list_of(megabytes), media_type="application/json")


@functools.cache
def list_of(megabytes):
    row = '{"id": 123456789, "name": "Ada Lovelace", "note": "' + "x" * 50 + '"}'
    return "[" + ", ".join([row] * (megabytes * 1_000_000 // (len(row) + 2))) + "]"


@router.get("/journal")
async def read_journal():
    return journal
