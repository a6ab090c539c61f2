"""Many commands and scripts, each in a process of its own, without its second of imports.

A parent imports the program once, and forks for each: what is called is the program itself.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.cli_harness import Answer

_PARENT = """
import json, os, sys, traceback
import batchord.cli, batchord.producer, batchord.worker.supervisor
from batchord.chains import registry

def run(job):
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["env"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        file = os.open(job[name], os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    sys.path.insert(0, job["folder"])
    if job["script"] is None:
        sys.argv = ["batchord", *job["args"]]
        batchord.cli.main()
    else:
        exec(compile(job["script"], "app.py", "exec"), {"__name__": "__main__"})

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            run(json.loads(line))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forking:
    """Runs commands and scripts in a folder, one after the other."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self._env = dict(env)
        self._lock = threading.Lock()
        # In a folder without modules: the program is the one that is installed.
        self._parent = subprocess.Popen(
            [sys.executable, "-P", "-c", _PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._env,
        )

    def command(self, *args: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Answer:
        """Run `batchord ARGS`."""
        return self._run(stdin, env, args=args, script=None)

    def script(self, text: str, *, env: Mapping[str, str] | None = None) -> Answer:
        """Run a script; an exception that is not caught is exit code 1 and a traceback."""
        return self._run("", env, args=[], script=text)

    def close(self) -> None:
        """End the parent."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait(30)
        self._parent.stdout.close()

    def _run(self, stdin: str, env: Mapping[str, str] | None, **job: Any) -> Answer:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        with self._lock:
            files = {name: self.folder.parent / name for name in ("stdin", "stdout", "stderr")}
            files["stdin"].write_text(stdin)
            for name in ("stdout", "stderr"):
                files[name].write_text("")
            job |= {name: str(path) for name, path in files.items()}
            job |= {"folder": str(self.folder), "env": {**self._env, **(env or {})}}
            print(json.dumps(job), file=self._parent.stdin, flush=True)
            code = int(self._parent.stdout.readline())
            return Answer(code, files["stdout"].read_text(), files["stderr"].read_text())
