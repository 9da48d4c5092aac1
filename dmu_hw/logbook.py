"""The log of a training: a line of JSON at each validation, and TensorBoard's events where it is installed."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from dmu_hw.train import Line


@dataclass
class Logbook:
    """As a context: it is complete when left."""

    file: TextIO
    board: Any | None
    """TensorBoard's writer."""

    @classmethod
    def of(cls, folder: Path) -> Logbook:
        """Go on with the log of a folder, or begin one."""
        board = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra

            board = SummaryWriter(str(folder / "tensorboard"))
        return cls(open(folder / "log.jsonl", "a", encoding="utf-8", newline="\n"), board)

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()

    def write(self, line: Line) -> None:
        """One line."""
        self.file.write(json.dumps(asdict(line)) + "\n")
        self.file.flush()
        if self.board is not None:
            self.board.add_scalar(f"{line.stage}/val_error", line.val_error, line.update)
            if line.loss is not None:
                self.board.add_scalar(f"{line.stage}/loss", line.loss, line.update)
