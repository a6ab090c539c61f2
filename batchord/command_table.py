"""The commands, their modules and the first sentences of their help; nothing is imported for it.

A module is imported when one of its commands is run: all of them take most of a second, which
`batchord --help` and each command would wait for.
"""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Final

import click

#: For each group of commands, in the order in which a newcomer needs them: the module below
#: `batchord.commands`, and the first sentence of the help.
GROUPS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "On this machine": {
        "run": ("run", "Run CHAIN, or a --prompt, over a file of inputs, on this machine."),
        "up": (
            "one_machine",
            "Run Valkey, workers and Flower here until Ctrl-C; the data stay for the next time.",
        ),
    },
    "Batches": {
        "submit": (
            "submit",
            "Submit a file of inputs as a batch of CHAIN or of a --prompt; prints its id and "
            "returns.",
        ),
        "estimate": (
            "submit",
            "Say what a batch of CHAIN or of a --prompt over a file of inputs may use.",
        ),
        "list": (
            "batches",
            "List batches, newest first, and runs that `batchord run` can go on with.",
        ),
        "status": ("batches", "Say how far a batch is, what fails and why, and what it costs."),
        "watch": ("batches", "Follow a batch to its end, and exit as it ended."),
        "results": (
            "results",
            "Write the results that are there, in input order, as JSON lines to stdout or into a "
            "file.",
        ),
        "errors": ("results", "List the failed items of a batch with their typed errors."),
        "failures": (
            "maintenance",
            "Say what has failed across batches: by chain and code, most items first.",
        ),
    },
    "A batch that runs, or has failed items": {
        "pause": (
            "control",
            "Let no new item of a batch start until it is resumed; what runs may end.",
        ),
        "resume": (
            "control",
            "Let a paused batch go on where it was; a budget stands in for the one that it has.",
        ),
        "cancel": (
            "control",
            "End a batch with what is done; what runs is cancelled within seconds.",
        ),
        "retry": ("control", "Run the failed items of a completed batch again, in place."),
        "resubmit": (
            "control",
            "Submit what of a cancelled or expired batch has never run, as a new one; prints its "
            "id.",
        ),
    },
    "A deployment": {
        "worker": (
            "one_machine",
            "Run Celery workers, and start again those whose process exits, until SIGTERM or "
            "Ctrl-C.",
        ),
        "workers": (
            "workers",
            "List the workers that are alive: what each has, and what it runs.",
        ),
        "flower": ("flower", "Run Flower with its Batches tab, until Ctrl-C."),
        "serve": (
            "serve",
            "Serve OpenAI's Files and Batch API, until Ctrl-C: the official SDKs are the clients.",
        ),
        "chains": ("batches", "List the chains that live workers have, and those of --chains."),
        "doctor": (
            "maintenance",
            "Look for settings that will lose items one day; exit code 3 if there are any.",
        ),
        "purge": (
            "maintenance",
            "Delete batches that have ended, before BATCHORD_RESULT_TTL does, and runs that are "
            "kept.",
        ),
        "audit": (
            "maintenance",
            "Say who paused, resumed, cancelled or retried a batch; without an ID, who purged "
            "which.",
        ),
    },
}


class Commands(MutableMapping[str, click.Command]):
    """The commands by name; one is imported as it is looked up."""

    def __init__(self) -> None:
        self._modules = {
            name: module for each in GROUPS.values() for name, (module, _) in each.items()
        }
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            module = import_module(f"batchord.commands.{self._modules[name]}")
            self._loaded |= {command.name: command for command in module.COMMANDS}
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name} stays")

    def __iter__(self) -> Iterator[str]:
        return iter({**self._modules, **self._loaded})

    def __len__(self) -> int:
        return len({**self._modules, **self._loaded})

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._loaded
