"""Workers and members for tests of the engine, which run in the processes of a real Ray cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from assets.engine import Work
from assets.errors import UserError


@dataclass(frozen=True)
class Doubler:
    """Doubles numbers, and notes each piece that it begins. Each number in `deadly` ends its process, as often as is said there."""

    notes: Path
    deadly: tuple[tuple[int, int], ...] = ()
    refused: int | None = None

    def opened(self) -> AbstractContextManager[Work]:
        with (self.notes / "opened").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return nullcontext(self._doubled)

    def _doubled(self, shared: int, piece: Iterable[int]) -> list[int]:
        numbers = list(piece)
        with (self.notes / "begun").open("a") as file:
            file.write(f"{numbers[0]}\n")
        if self.refused in numbers:
            raise UserError(f"{self.refused} cannot be doubled")
        for number, times in self.deadly:
            died = self.notes / f"died of {number}"
            deaths = died.stat().st_size if died.exists() else 0
            if number in numbers and deaths < times:
                with died.open("a") as file:
                    file.write("†")
                os.kill(os.getpid(), signal.SIGKILL)
        return [2 * number + shared for number in numbers]
