"""A real OPC UA server as a process of its own: ``python opcua_server.py PORT HISTORY ASSET=SIGNAL,SIGNAL ...``

Variables are ``Plant/<asset>/<signal>``, ``ns=2;i=1001`` and so on, writable, so that a test plays the plant by writing
to them with a source time and a status. HISTORY is an SQLite file that outlives a restart, or ``-``.
With OPCUA_CERT, OPCUA_KEY and OPCUA_USERS (``name:password``) in the environment only encrypted sessions are let in.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from datetime import datetime
from pathlib import Path
from typing import Any


def user_manager(users: dict[str, str]) -> Any:
    from asyncua.server.user_managers import User, UserRole

    class Manager:
        def get_user(self, _server: Any, username: str | None = None, password: str | None = None, **_: Any) -> Any:
            return User(role=UserRole.User, name=username) if users.get(username or "") == password else None

    return Manager()


async def serve(port: int, history: str, assets: dict[str, list[str]]) -> None:
    from asyncua import Server, ua
    from asyncua.server.history_sql import HistorySQLite

    given = dict(pair.split(":") for pair in os.environ.get("OPCUA_USERS", "").split(",") if pair)
    server = Server(user_manager=user_manager(given)) if given else Server()
    if history != "-":
        # the converter that sqlite3 comes with does not read the times with an offset that asyncua 2.1 writes
        sqlite3.register_converter("timestamp", lambda text: datetime.fromisoformat(text.decode()))
        server.iserver.history_manager.set_storage(HistorySQLite(history))
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    if cert := os.environ.get("OPCUA_CERT"):
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        await server.load_certificate(cert)
        await server.load_private_key(os.environ["OPCUA_KEY"])
    if given:
        server.set_identity_tokens([ua.UserNameIdentityToken])
    space = await server.register_namespace("urn:headrace:tests")
    plant = await server.nodes.objects.add_object(ua.NodeId("Plant", space), f"{space}:Plant")
    number = 1000
    for asset, signals in assets.items():
        folder = await plant.add_object(ua.NodeId(asset, space), f"{space}:{asset}")
        for signal in signals:
            number += 1  # numbers: the history's tables do not take other names
            initial = ua.DataValue(
                ua.Variant(None, ua.VariantType.Null),
                ua.StatusCode(ua.StatusCodes.BadWaitingForInitialData),
            )
            node = await folder.add_variable(ua.NodeId(number, space), f"{space}:{signal}", 0.0, ua.VariantType.Double)
            await node.set_writable()
            await node.write_value(initial)
            if history != "-":
                await server.historize_node_data_change(node, period=None)
    async with server:
        await asyncio.Event().wait()


if __name__ == "__main__":
    wanted = dict(argument.split("=") for argument in sys.argv[3:])
    history = sys.argv[2] if sys.argv[2] == "-" else str(Path(sys.argv[2]).resolve())
    asyncio.run(serve(int(sys.argv[1]), history, {asset: held.split(",") for asset, held in wanted.items()}))
