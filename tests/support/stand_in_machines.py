"""Stand-ins for the machines of a cluster where there are none: an `ssh` and an `rsync` that reach folders of this one.

What `ray up` and Ray's autoscaler send to a machine is copied into, or run in, a home of its own below MACHINES, as its
own shell would; nothing of ours and nothing of Ray's is replaced. Not run: setting up (five minutes and 3.5 GB, on a
machine that is set up already) and `ray stop`, which would end every Ray process of this machine. All is logged.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

RUN = re.compile(r"node\.sh (head|worker) |mkdir -p |uptime|echo \W{0,5}AVAVLA_|^true$")
NEVER = re.compile(r"ray stop|node\.sh (stop|install)|shutdown")


class Machines:
    """Of one cluster.

    Args:
        folder: theirs, with a short path (sockets lie in it).
        environment: of everything that runs on them, credentials for instance.
        first, others: lines of ~/avavla_machine.env, of the machine that is reached first and of the others.
    """

    def __init__(self, folder: Path, environment: dict[str, str], first: list[str], others: list[str]) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        plan = {"environment": environment, "first": first, "others": others, "bin": str(folder / "bin")}
        (folder / "plan.json").write_text(json.dumps(plan))
        for name in ("ssh", "rsync"):
            script = folder / "bin" / name
            script.write_text(f'#!/bin/bash\nexec "{sys.executable}" "{__file__}" {name} "{folder}" "$@"\n')
            script.chmod(0o755)

    def sent(self) -> list[dict[str, str]]:
        """What was sent to them, in order: {"host": ..., "did": "run", "skipped" or "copied", "what": ...}."""
        log = self.folder / "log.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def home(self, host: str) -> Path:
        return self.folder / "m" / host

    def end(self) -> None:
        """All processes that were started on them."""
        import psutil  # not by the stand-ins themselves, which start often

        def is_ours(process: psutil.Process) -> bool:
            with contextlib.suppress(psutil.Error):
                return process.environ().get("HOME", "").startswith(str(self.folder))
            return False

        ours = [process for process in psutil.process_iter() if is_ours(process)]
        for process in ours:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(ours, timeout=10)


def _home(folder: Path, host: str, plan: dict) -> Path:
    """Of a machine, which has booted when it is reached first."""
    (folder / "m").mkdir(exist_ok=True)
    is_first = not any((folder / "m").iterdir())
    home = folder / "m" / host
    with contextlib.suppress(FileExistsError):
        home.mkdir()
        environment = {
            **plan["environment"],
            "PATH": f"{plan['bin']}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        (home / ".bashrc").write_text("".join(f"export {name}='{value}'\n" for name, value in environment.items()))
        (home / "avavla_machine.env").write_text("\n".join(plan["first"] if is_first else plan["others"]) + "\n")
        # As set-up leaves it.
        (home / "avavla").mkdir()
        (home / "avavla/.venv").symlink_to(Path(sys.executable).parent.parent)
    return home


def _note(folder: Path, **what: str) -> None:
    with open(folder / "log.jsonl", "a") as log:
        log.write(json.dumps(what) + "\n")


def _ssh(folder: Path, plan: dict, arguments: list[str]) -> int:
    while arguments[0].startswith("-"):
        arguments = arguments[1:] if arguments[0] == "-tt" else arguments[2:]
    host, command = arguments[0].partition("@")[2], " ".join(arguments[1:])
    home = _home(folder, host, plan)
    if NEVER.search(command) or not RUN.search(command):
        _note(folder, host=host, did="skipped", what=command)
        return 0
    _note(folder, host=host, did="run", what=command)
    # Of a machine's own, not of whoever calls.
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "USER": "ubuntu", "TERM": "dumb"}
    return subprocess.run(["bash", "-c", command], env=environment, cwd=home, check=False).returncode


def _rsync(folder: Path, plan: dict, arguments: list[str]) -> int:
    source, (host, _, there) = arguments[-2], arguments[-1].partition("@")[2].partition(":")
    home = _home(folder, host, plan)
    target = home / there.removeprefix("~/")
    _note(folder, host=host, did="copied", what=f"{source} {there}")
    target.parent.mkdir(parents=True, exist_ok=True)
    source = os.path.expanduser(source)
    if source.endswith("/"):
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)
    return 0


if __name__ == "__main__":
    _kind, _folder = sys.argv[1], Path(sys.argv[2])
    _plan = json.loads((_folder / "plan.json").read_text())
    sys.exit({"ssh": _ssh, "rsync": _rsync}[_kind](_folder, _plan, sys.argv[3:]))
