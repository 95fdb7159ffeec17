"""The call before several processes begin: process 0 hears from each of the others, or says who is missing.

JAX's own coordination service ends a process whose companions do not come by an abort that names nobody. So the processes
meet first, over plain TCP on the coordinator's port: each sends a line {"process", "processes", "host"} and holds its
connection until process 0 answers all with {"hosts"} or {"error"}.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Sequence

from diffux.devices.cluster import Cluster
from diffux.errors import Lost, UserError, one_sentence


def meet(cluster: Cluster, timeout: float) -> tuple[str, ...]:
    """The host of every process, in their order, as soon as all have come.

    Raises Lost in every process that came where some are missing after `timeout` seconds, or where process 0 cannot be
    reached; UserError where two processes say the same number, or another count.
    """
    host = socket.gethostname()
    reply = _call(cluster, host, timeout) if cluster.process == 0 else _answer(cluster, host, timeout)
    if "hosts" in reply:
        return tuple(reply["hosts"])
    raise (UserError if reply.get("fault") else Lost)(reply["error"])


def named(processes: Sequence[int], hosts: Sequence[str] = ()) -> str:
    """ "process 3 (host b)" or "processes 1 (host a) and 3 (host b)"; at most five of them."""
    words = [f"{i} (host {hosts[i]})" if i < len(hosts) and hosts[i] else str(i) for i in processes]
    more = [f"{len(words) - 5} more"] if len(words) > 5 else []
    words = words[:5] + more
    return f"process{'es' * (len(processes) > 1)} " + " and ".join(([", ".join(words[:-1])] if words[1:] else []) + words[-1:])


def _listen(host: str, port: int) -> socket.socket:
    # As JAX's service will: on every address, except that a loopback address stays on this machine.
    if host in ("localhost", "127.0.0.1"):
        return socket.create_server(("127.0.0.1", port))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _call(cluster: Cluster, host: str, timeout: float) -> dict:
    """Process 0's part: listen until everybody has said who it is."""
    deadline = time.monotonic() + timeout
    try:
        server = _listen(*cluster.address)
    except OSError as error:
        where = f"process 0 cannot listen on {cluster.coordinator} ({error.strerror})"
        raise UserError(f"{where}: is another run using the port?") from error
    hosts, speakers, reply = {0: host}, {}, None
    with server, selectors.DefaultSelector() as selector:
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ)
        while reply is None:
            if len(hosts) == cluster.processes:
                reply = {"hosts": [hosts[i] for i in range(cluster.processes)]}
                break
            left = deadline - time.monotonic()
            if left <= 0:
                missing = [i for i in range(cluster.processes) if i not in hosts]
                reply = {
                    "error": f"{named(missing, cluster.hosts)} of {cluster.processes} did not come to {cluster.coordinator} "
                    f"within {timeout:g} s: see whether {'they were' if missing[1:] else 'it was'} started and that port is open"
                }
            for key, _ in selector.select(max(left, 0)):
                if key.fileobj is server:
                    connection, _ = server.accept()
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ, bytearray())
                    continue
                try:
                    read = key.fileobj.recv(4096)
                except OSError:
                    read = b""
                key.data.extend(read)
                if not read or len(key.data) > 4096:  # gone, or nobody of ours
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    hosts.pop(speakers.pop(key.fileobj, None), None)
                elif key.data.endswith(b"\n"):
                    reply = _heard(cluster, hosts, speakers, key) or reply
        for connection in [key.fileobj for key in selector.get_map().values() if key.fileobj is not server]:
            _tell(connection, reply)
    return reply


def _heard(cluster: Cluster, hosts: dict, speakers: dict, key) -> dict | None:
    """Note one process's line; what is to be answered at once if it cannot be."""
    try:
        line = json.loads(key.data)
        process, processes, host = int(line["process"]), int(line["processes"]), str(line["host"])
    except (ValueError, KeyError, TypeError):
        return None
    if processes != cluster.processes:
        wrong = f"process {process} (host {host}) was told of {processes} processes and process 0 of {cluster.processes}"
    elif process in hosts:
        wrong = f"two processes were told to be process {process} (hosts {hosts[process]} and {host})"
    else:
        hosts[process], speakers[key.fileobj] = host, process
        return None
    return {"error": f"{wrong}: start each with its own --process and the same --processes", "fault": True}


def _tell(connection: socket.socket, reply: dict) -> None:
    try:
        with connection:
            connection.settimeout(5)
            connection.sendall(json.dumps(reply).encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)  # its end first: the port is free again at once
    except OSError:
        pass


def _answer(cluster: Cluster, host: str, timeout: float) -> dict:
    """Everybody else's part: find process 0 and wait for its word."""
    deadline = time.monotonic() + timeout
    hello = {"process": cluster.process, "processes": cluster.processes, "host": host}
    while True:
        try:
            with socket.create_connection(cluster.address, timeout=5) as connection:
                connection.sendall(json.dumps(hello).encode() + b"\n")
                # Process 0 was there before this connection, and gives up after as long.
                connection.settimeout(timeout + 5)
                reply = json.loads(connection.makefile("rb").readline())
                if "hosts" in reply or "error" in reply:
                    return reply
                why = "something else answers there"
        except OSError as error:
            why = error.strerror or one_sentence(error)
        except (ValueError, TypeError):
            why = "something else answers there"
        if time.monotonic() > deadline:
            raise Lost(
                f"process {cluster.process} (host {host}) did not reach {named([0], cluster.hosts)} at {cluster.coordinator} "
                f"within {timeout:g} s ({why}): see whether it was started, and whether that name and port are right and open"
            )
        time.sleep(0.3)
