"""The container without Docker: a bubblewrap sandbox laid out like Truss's image.

Promises: it runs the unmodified output of Truss's builder, placed as its Dockerfile places it, as
user 60000. The Dockerfile's own command (supervisord, or the start command if Truss has built
without nginx) is PID 1 of its own PID namespace, so when it ends, every process in it ends. Nothing
is left on disk: files of the image are passed as open file descriptors, the rest is mounted
read-only or lives in memory. It uses the machine's network. Of the Dockerfile's commands only those
that install a file are carried out; packages are this machine's.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import CommandError

USER_ID = 60000  # "app", Truss's default for containers on Baseten
VENV = Path(sys.prefix)

# What Truss's usual image runs as PID 1
ENTRYPOINT = ["/docker_server/.venv/bin/supervisord", "-c", "/etc/supervisor/supervisord.conf"]

# The files under /etc in the image that a process may look up
ETC = ["alternatives", "hosts", "ld.so.cache", "localtime", "nginx/mime.types", "nsswitch.conf",
       "resolv.conf", "ssl"]  # fmt: skip

NOTHING: Mapping[str, Path] = {}

IMAGE_ENVIRONMENT = {
    "PATH": f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/home/app",
    "APP_HOME": "/app",
    "LANG": "C.UTF-8",
    "PORT": "8080",  # set by Baseten
}

# file of the build context → where the Dockerfile copies it; the last two only with nginx
PLACES = {
    "config.yaml": "/app/config.yaml",
    "proxy.conf": "/etc/nginx/conf.d/proxy.conf",
    "supervisord.conf": "/etc/supervisor/supervisord.conf",
}
FOLDERS = {"packages": "/packages", "data": "/app/data"}
PROGRAMS = "/usr/local/bin"  # where build commands may install a program


def dockerfile_command(dockerfile: str) -> list[str]:
    """The command that a Dockerfile's ENTRYPOINT and CMD, in their JSON forms, run as PID 1."""
    words: list[str] = []
    for instruction in ("ENTRYPOINT", "CMD"):
        for given in re.findall(rf"^{instruction} (\[.*\])$", dockerfile, re.MULTILINE)[-1:]:
            words += json.loads(given)
    return words


def installed(dockerfile: str) -> dict[str, str]:
    """Programs that build commands install → the files they are copied from, both as paths in the
    container."""
    found = re.findall(r"^RUN +install -m 755 (/\S+) (/\S+)$", dockerfile, re.MULTILINE)
    return {to: source for source, to in found}


def image_files(context: Path, nginx_conf: Path) -> dict[str, bytes]:
    """Path in the container → content, from a Truss build context and the image's nginx.conf."""
    places = {name: place for name, place in PLACES.items() if (context / name).is_file()}
    files = {place: (context / name).read_bytes() for name, place in places.items()}
    for folder, place in FOLDERS.items():
        for path in sorted((context / folder).rglob("*")):
            if path.is_file():
                files[f"{place}/{path.relative_to(context / folder)}"] = path.read_bytes()
    if PLACES["proxy.conf"] in files:
        files["/etc/nginx/nginx.conf"] = nginx_conf.read_bytes()
    for program, source in installed((context / "Dockerfile").read_text()).items():
        files[program] = files[source]
    files["/etc/passwd"] = f"app:x:{USER_ID}:{USER_ID}::/home/app:/bin/bash\n".encode()
    files["/etc/group"] = f"app:x:{USER_ID}:\n".encode()
    return files


def arguments(
    mounts: Mapping[str, Path],
    files: Mapping[str, int],
    info: int,
    command: Sequence[str] = ENTRYPOINT,
    writable: Mapping[str, Path] = NOTHING,
) -> list[str]:
    """bubblewrap's command line. `mounts`: path in the container → folder or file here, read-only;
    `files`: path in the container → file descriptor with its content; `info`: descriptor for
    bubblewrap's own report; `command`: runs as PID 1; `writable`: like `mounts`, but writable."""
    words = ["bwrap", "--unshare-user", "--uid", f"{USER_ID}", "--gid", f"{USER_ID}"]
    words += ["--unshare-pid", "--as-pid-1", "--unshare-ipc", "--new-session", "--die-with-parent"]
    words += ["--info-fd", str(info), "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm"]
    for folder in ("/run", "/var", "/tmp"):
        words += ["--tmpfs", folder]
    for folder in ("/var/lib/nginx", "/var/log/nginx", "/home/app", "/app/data", "/packages"):
        words += ["--dir", folder]
    words += ["--ro-bind", "/usr", "/usr", "--ro-bind", "/sys", "/sys"]  # vLLM asks lscpu
    for link in ("bin", "sbin", "lib", "lib64"):
        words += ["--symlink", f"usr/{link}", f"/{link}"]
    for name in ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for place in dict.fromkeys([sys.base_prefix, str(VENV)]):
        if not Path(place).is_relative_to("/usr"):
            words += ["--ro-bind", place, place]
    words += ["--tmpfs", PROGRAMS]  # for programs installed there, besides this machine's
    for program in sorted(Path(PROGRAMS).iterdir()):
        if str(program) not in files:
            words += ["--ro-bind-try", str(program), str(program)]
    if command[:1] == ENTRYPOINT[:1]:
        words += ["--symlink", str(VENV), "/docker_server/.venv"]
    for where, here in mounts.items():
        words += ["--ro-bind", str(here), where]
    for where, here in writable.items():
        words += ["--bind", str(here), where]
    for where, descriptor in files.items():
        mode = ["--perms", "0755"] if where.startswith(f"{PROGRAMS}/") else []
        words += [*mode, "--ro-bind-data", str(descriptor), where]
    return [*words, "--chdir", "/", *command]


class SandboxError(CommandError):
    """Why the sandbox cannot start, and what it needs, in one line."""


@dataclass
class Container:
    """A running container. `process` is bubblewrap's; `pid_1` is its PID 1, seen from outside."""

    process: subprocess.Popen[bytes]
    pid_1: int

    def signal(self, number: int) -> None:
        """Sends a signal to PID 1, unless it has already ended."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid_1, number)


def start(
    files: Mapping[str, bytes],
    mounts: Mapping[str, Path],
    environment: Mapping[str, str],
    command: Sequence[str] = ENTRYPOINT,
    writable: Mapping[str, Path] = NOTHING,
) -> Container:
    """Starts the container; its output arrives through `process.stdout`, a pipe."""
    report, info = os.pipe()
    descriptors = {where: _in_memory(content) for where, content in files.items()}
    try:
        process = subprocess.Popen(
            arguments(mounts, descriptors, info, command, writable),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**IMAGE_ENVIRONMENT, **environment},
            pass_fds=[info, *descriptors.values()],
            start_new_session=True,  # Ctrl-C in the terminal is ours to handle
        )
    finally:
        os.close(info)
        for descriptor in descriptors.values():
            os.close(descriptor)
    with open(report) as stream:
        text = stream.read()  # ends once bubblewrap has set up the sandbox, or has failed
    if not text:
        output, _ = process.communicate()
        raise SandboxError(
            f"bubblewrap cannot make the sandbox ({output.decode(errors='replace').strip()}); "
            "it needs root or unprivileged user namespaces"
        )
    return Container(process, json.loads(text)["child-pid"])


def _in_memory(content: bytes) -> int:
    descriptor = os.memfd_create("image-file")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
