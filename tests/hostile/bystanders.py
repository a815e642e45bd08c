"""What else is on the machine while a submission runs: a server, shared memory, a terminal, a key, an earlier run."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import uuid
from pathlib import Path
from typing import Any

from calls import call

USER_KEYRING, PROCESS_KEYRING, SEARCH, UNLINK = -4, -2, 10, 9
CREATE, REMOVE = 0o1000, 0
SECRET = "the secret of a bystander"


class Bystanders:
    """Programs and objects of the user, whose names a submission is told as `given`. Close it at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.signals = folder, 0
        name = f"hostile-{uuid.uuid4().hex[:12]}"
        self._earlier = folder / "truth.json"
        self._earlier.write_text("[1, 2, 3]")
        self.servers = [self._listen(socket.AF_INET, ("127.0.0.1", 0))]
        self.servers.append(self._listen(socket.AF_UNIX, str(folder / "socket")))
        self.servers.append(self._listen(socket.AF_UNIX, f"\0{name}"))
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", 0))
        self.datagrams.setblocking(False)
        self.shared = Path("/dev/shm", name)
        self.shared.write_text(SECRET)
        self._buffer = ctypes.create_string_buffer(b"labels")
        self._system_v_key = int(uuid.uuid4().hex[:7], 16)
        self._system_v = call("shmget", self._system_v_key, 4096, CREATE | 0o600)
        self.terminal, self._slave = os.openpty()
        os.set_blocking(self.terminal, False)
        self._key, self.left_key = f"{name}-key", f"{name}-left"
        self._has_keys = self._add_key()
        self._program = subprocess.Popen(["sleep", "600"], env=os.environ | {"SECRET": SECRET})
        self._before = signal.signal(signal.SIGWINCH, self._note_signal)

    def given(self) -> dict[str, Any]:
        """What the attacks are told of them."""
        return {
            "pid": os.getpid(),
            "address": ctypes.addressof(self._buffer),
            "earlier": str(self._earlier),
            "secret": SECRET,
            "tcp_port": self.servers[0].getsockname()[1],
            "udp_port": self.datagrams.getsockname()[1],
            "unix_path": str(self.folder / "socket"),
            "abstract_name": self.shared.name,
            "shared_name": self.shared.name,
            "system_v_key": self._system_v_key,
            "terminal": os.ttyname(self._slave),
            "key": self._key,
            "left_key": self.left_key,
            "host": os.uname().nodename,
            "uts": str(Path("/proc/self/ns/uts").readlink()),
        }

    def _listen(self, family: int, address: Any) -> socket.socket:
        server = socket.socket(family)
        server.bind(address)
        server.listen()
        return server

    def _note_signal(self, number: int, frame: object) -> None:
        self.signals += 1

    def _add_key(self) -> bool:
        try:
            call("add_key", b"user", self._key.encode(), SECRET.encode(), len(SECRET), USER_KEYRING)
        except OSError:  # a container may forbid keyrings to all programs
            return False
        return True

    def has_key(self, name: str) -> bool:
        """Whether the keyring of the user has this key."""
        try:
            return self._has_keys and call("keyctl", SEARCH, USER_KEYRING, b"user", name.encode(), 0) > 0
        except OSError:
            return False

    def received(self) -> bytes:
        """What was sent to the port for datagrams."""
        try:
            return self.datagrams.recv(100)
        except BlockingIOError:
            return b""

    def shown(self) -> bytes:
        """What was written to the terminal."""
        try:
            return os.read(self.terminal, 100)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """End them all."""
        signal.signal(signal.SIGWINCH, self._before)
        self._program.kill()
        self._program.wait()
        for name in (self._key, self.left_key):
            if self.has_key(name):
                key = call("keyctl", SEARCH, USER_KEYRING, b"user", name.encode(), 0)
                call("keyctl", UNLINK, key, USER_KEYRING)
        os.close(self.terminal)
        os.close(self._slave)
        call("shmctl", self._system_v, REMOVE, None)
        self.shared.unlink(missing_ok=True)
        for server in (*self.servers, self.datagrams):
            server.close()
