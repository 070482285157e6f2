"""Become a user that Postgres accepts, then run a command: `python -m stack.identity IDENTITY FOLDER COMMAND…`.

Postgres refuses to run as root or as a user without a name. An ordinary user runs it directly. Otherwise the process
enters a user namespace and is `nobody` there; files keep their owner, so nothing has to be readable by others. If
namespaces are not allowed (Docker's default), root really becomes `nobody`, but keeps the one capability needed to
reach its files below folders that `nobody` may not enter.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from pathlib import Path
from typing import Literal, get_args

Identity = Literal["same", "namespace", "nobody"]
Choice = Literal["auto"] | Identity

NOBODY = 65534
_CLONE_NEWUSER = 0x10000000
_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 47, 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def choose() -> Identity:
    """Return how this process can become a user that Postgres accepts."""
    user = os.geteuid()
    if user != 0 and _has_name(user):
        return "same"
    if sys.platform == "linux" and _namespace_allowed():
        return "namespace"
    if sys.platform == "linux" and user == 0:
        return "nobody"
    raise SystemExit(
        f"Postgres cannot run as user {user} here, and this system does not allow user namespaces; "
        "run as an ordinary user listed in /etc/passwd"
    )


def become(choice: str, folder: Path) -> None:
    """Take on an identity for good, as the owner of `folder` and its contents; `auto` is the first that works."""
    identity = choose() if choice == "auto" else choice
    if identity not in get_args(Identity):
        raise SystemExit(f"{choice!r} is not an identity; use auto, {', '.join(get_args(Identity))}")
    if identity == "same":
        return
    if os.geteuid() == 0:
        _give(folder, NOBODY if identity == "nobody" else 0)
    if identity == "namespace":
        _enter_namespace()
    else:
        _drop_to_nobody()


def _has_name(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _namespace_allowed() -> bool:
    child = os.fork()
    if child == 0:
        try:
            _enter_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _enter_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    _call("unshare", ctypes.c_int(_CLONE_NEWUSER))
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1", encoding="ascii")


def _drop_to_nobody() -> None:
    """Change the user but keep DAC_OVERRIDE, as an ambient capability, which survives the exec."""
    _call("prctl", ctypes.c_int(_PR_SET_KEEPCAPS), *map(ctypes.c_ulong, (1, 0, 0, 0)))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    mask = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable; then the high halves
    _call("capset", header, sets)
    ambient = map(ctypes.c_ulong, (_PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))
    _call("prctl", ctypes.c_int(_PR_CAP_AMBIENT), *ambient)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _give(folder: Path, user: int) -> None:
    """Make `user` the owner of `folder` and its contents, unless it already is."""
    if not folder.exists() or folder.stat().st_uid == user:
        return
    for path in (*folder.rglob("*"), folder):
        os.chown(path, user, user, follow_symlinks=False)


def main() -> None:
    """Run the command in the arguments as a user that Postgres accepts."""
    choice, folder, *command = sys.argv[1:]
    become(choice, Path(folder))
    os.execv(command[0], command)  # noqa: S606 - there is no shell, which is the point


if __name__ == "__main__":
    main()
