"""Requests to the deployments of a home, over their control sockets. docs/control-api.md has what can be asked and what is answered."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from typing import Any
from urllib.parse import quote

#: How long a request that changes nothing may take, in seconds.
_READ_S = 10.0
#: How long one that changes something may take, in seconds, unless the client says otherwise: a reload waits for its workers.
_CHANGE_S = 600.0
#: Looks at a deployment that is about to end, or whose master is being replaced.
_LOOKS_MAX = 100
#: The pause between two of them, in seconds.
_LOOK_EVERY_S = 0.02
#: The longest answer that is read, in bytes.
_ANSWER_BYTES_MAX = 16 << 20


class ClusterdError(Exception):
    """clusterd refused a request, or could not be asked.

    `status` is that of HTTP (404 no such app, 409 refused), None where there was no answer; `output` has the last lines of the worker
    that made a reload fail.
    """

    def __init__(self, message: str, status: int | None = None, output: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.output = output


class _BrokenOff(ClusterdError):
    """There was no answer; a master that is replaced closes its connections."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(path: str, method: str, target: str, body: Any = None, timeout: float = _READ_S) -> Any:
    connection = _Connection(path, timeout)
    try:
        text = None if body is None else json.dumps(body)
        headers = {} if text is None else {"content-type": "application/json"}
        connection.request(method, target, text, {**headers, "connection": "close"})
        response = connection.getresponse()
        found = response.read(_ANSWER_BYTES_MAX + 1)
    except socket.timeout:
        raise ClusterdError(f"clusterd at {path} did not answer {method} {target} within {timeout:g} s") from None
    except (http.client.HTTPException, ConnectionResetError, BrokenPipeError) as error:
        raise _BrokenOff(f"clusterd at {path} broke off, and may have done what was asked for: {error!r}") from error
    finally:
        connection.close()
    if len(found) > _ANSWER_BYTES_MAX:
        raise ClusterdError(f"the answer of {path} has more than {_ANSWER_BYTES_MAX} bytes")
    try:
        answer = json.loads(found)
    except ValueError:
        answer = {}
    if response.status != 200:
        said = answer.get("error") or f"clusterd answered with status {response.status}"
        raise ClusterdError(said, response.status, answer.get("output"))
    return answer


def _deployment(path: str) -> dict[str, Any] | None:
    """What runs at a control socket; None: it has ended."""
    for look in range(1, _LOOKS_MAX + 1):
        try:
            return {**_ask(path, "GET", "/v1/apps"), "socket": path}
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise ClusterdError(f"cannot ask clusterd at {path}: {error}") from error
        except _BrokenOff:
            if look == _LOOKS_MAX:
                raise
            time.sleep(_LOOK_EVERY_S)
    return None


class Client:
    """A client of a home (`home`, or $CLUSTERD_HOME, or ~/.clusterd). Nothing is held open between requests.

    What changes something waits until it is done, at most `timeout` seconds, and gives clusterd's answer, `{"ok": True, "message": ...}`.
    """

    def __init__(self, home: str | os.PathLike[str] | None = None, timeout: float = _CHANGE_S) -> None:
        named = home if home is not None else os.environ.get("CLUSTERD_HOME")
        self.home = os.path.abspath(named if named is not None else os.path.expanduser("~/.clusterd"))
        self.timeout = timeout

    def deployments(self) -> list[dict[str, Any]]:
        """Every deployment that runs, each with its `apps` and its `socket`."""
        folder = os.path.join(self.home, "run")
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".sock"))
        except FileNotFoundError:
            names = []
        found = []
        for name in names:
            deployment = _deployment(os.path.join(folder, name))
            if deployment is not None:
                found.append(deployment)
        return found

    def apps(self) -> list[dict[str, Any]]:
        """Every app of them, with the name of its `deployment`."""
        return [{**app, "deployment": each["name"]} for each in self.deployments() for app in each["apps"]]

    def start(self, app: str) -> dict[str, Any]:
        """Starts an app that was stopped."""
        return self._change(app, "start")

    def stop(self, app: str, now: bool = False) -> dict[str, Any]:
        """Finishes open connections, then ends the workers. `now`: at once."""
        return self._change(app, "stop", {"now": now})

    def restart(self, app: str) -> dict[str, Any]:
        """Stops the workers, then starts them again."""
        return self._change(app, "restart")

    def reload(self, app: str) -> dict[str, Any]:
        """Replaces every worker, the new ones first. An error where the new code does not get ready; the old code serves on."""
        return self._change(app, "reload")

    def scale(self, app: str, workers: int | str) -> dict[str, Any]:
        """The number of workers: 4, "+2", "-1", "max", "50%", "auto"."""
        return self._change(app, "scale", {"workers": str(workers)})

    def releases(self, app: str) -> list[dict[str, Any]]:
        """The generations of an app that ran, the last one first."""
        releases: list[dict[str, Any]] = self._of(app, "GET", "releases", None, _READ_S)["releases"]
        return releases

    def rollback(self, app: str, to: int | None = None) -> dict[str, Any]:
        """Goes back to the folder and configuration of the generation that served before, or of `to`. An error where there is none."""
        return self._change(app, "rollback", {} if to is None else {"to": to})

    def _change(self, app: str, verb: str, body: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._of(app, "POST", verb, body, self.timeout)
        return answer

    def _of(self, app: str, method: str, verb: str, body: Any, timeout: float) -> Any:
        deployments = self.deployments()
        for each in deployments:
            if any(its["name"] == app for its in each["apps"]):
                try:
                    return _ask(each["socket"], method, f"/v1/apps/{quote(app, safe='')}/{verb}", body, timeout)
                except OSError as error:
                    raise ClusterdError(f"cannot ask clusterd at {each['socket']}: {error}") from error
        if not deployments:
            raise ClusterdError(f"no deployment runs in {self.home}", 404)
        names = ", ".join(its["name"] for each in deployments for its in each["apps"])
        raise ClusterdError(f"there is no app {app}; there are: {names}", 404)
