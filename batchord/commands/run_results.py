"""Where the results of a run go, and what else is known of them."""

from dataclasses import dataclass

from batchord.commands.durable_run import chain_version
from batchord.commands.only_new import OnlyNew
from batchord.io.input_file import InputFile
from batchord.io.kept_answers import note_of
from batchord.io.located import Locate, located
from batchord.ledger.settings import Settings
from batchord.local.table_notes import save_note
from batchord.output.result_writer import Target, Written, unmerged
from batchord.producer import Batch
from batchord.producer.tables.remote_file import NotWritten, RemoteFile


@dataclass(frozen=True)
class RunResults:
    """Writes the results of a run, with the rows that keep an earlier answer in between."""

    target: Target
    source: InputFile
    settings: Settings
    chain: str
    #: None: each row of the input is an item of the batch.
    only_new: OnlyNew | None

    @property
    def locate(self) -> Locate:
        """The function that adds to errors where in the input their items stand."""
        lines = None if self.only_new is None else self.only_new.merged.lines
        return located(self.source, lines)

    def write(self, batch: Batch | None, *, wait: bool) -> Written:
        """Write the results, all or nothing; note of a table which chain has made its answers.

        `batch`: None if each row keeps an earlier answer.

        Raises:
            NotWritten: they could not be written; the ledger has them.
        """
        merge = unmerged if self.only_new is None else self.only_new.merged.pairs
        try:
            written = self.target.write(batch, wait=wait, locate=self.locate, merge=merge)
        except NotWritten as error:
            raise NotWritten(
                f"{error}. Nothing is lost: the same command writes them, and runs nothing again"
            ) from error
        if written.columns is not None:
            note = note_of(chain_version(self.chain), written.columns)
            save_note(self.settings.home, self.target.path, note)
        return written

    def write_ended(self, batch: Batch) -> str:
        """Write what has ended of a batch that goes on later; return where, and how much it is.

        A table with earlier answers stays as it is, and nothing is uploaded: what the batch has is
        in its ledger.
        """
        if self.only_new is not None or isinstance(self.target.path, RemoteFile):
            done = batch.record().request_counts.done
            return f"{done} items had ended; {self.target.path} is as it was"
        count, where, _ = self.write(batch, wait=False)
        return f"the {count} items that had ended are in {where}"
