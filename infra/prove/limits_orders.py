"""Orders while entries are barred: the real executor on the real engine, stopped, killed and disturbed at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inference.domain.order import OrderIntent, Purpose
from inference.domain.policy import EntryStyle
from inference.domain.signal import Direction
from infra.prove.engine_gateway import ASKING_FAULTS, SENDING_FAULTS
from infra.prove.stateful_machine import PRICES, Trading

STEPS = 30


@dataclass(slots=True)
class Told:
    """What was seen of a life: entries and exits that were sent, by whether entries were barred, and what was wrong."""

    entries: int = 0
    exits_barred: int = 0
    bars: int = 0
    steps: int = 0
    wrong: list[str] = field(default_factory=list)


class BarredTrading(Trading):
    """A worker's executor whose entries are barred and admitted again, also across its deaths."""

    def __init__(self, *, is_deaf: bool = False) -> None:
        """With `is_deaf` the executor is never told, so that whoever looks must find that."""
        super().__init__()
        self.told = Told()
        self.is_barred = False
        self._is_deaf = is_deaf

    def open(self, style: EntryStyle) -> None:
        """Begin, and see every order that is sent from now on."""
        self.begin(style=style)
        submit = self.gateway.submit

        async def seen(intent: OrderIntent) -> Any:
            self._see(intent)
            return await submit(intent)

        self.gateway.submit = seen  # type: ignore[method-assign]

    def start(self) -> None:
        """Start a process, barred as the one before was: what is latched is latched through every restart."""
        super().start()
        if self.is_barred:
            self.bar()

    def bar(self) -> None:
        """Let no entry out any more."""
        self.told.bars += not self.is_barred
        self.is_barred = True
        if not self._is_deaf:
            self.executor.bar_entries("EMERGENCY_STOP", "drill")

    def admit(self) -> None:
        """Let entries out again."""
        self.is_barred = False
        self.executor.admit_entries()

    def _see(self, intent: OrderIntent) -> None:
        if intent.purpose is Purpose.ENTRY:
            self.told.entries += 1
            if self.is_barred:
                self.told.wrong.append(f"an entry of {intent.symbol} was sent while entries were barred")
        elif self.is_barred and intent.purpose is Purpose.EXIT:
            self.told.exits_barred += 1


def one_life(seed: int, *, is_deaf: bool = False) -> Told:
    """Live one life by a seed; in its end everything can be left, whether entries are barred or not."""
    rng, machine = random.Random(seed), BarredTrading(is_deaf=is_deaf)
    try:
        machine.open(rng.choice(list(EntryStyle)))
        for _ in range(STEPS):
            _step(machine, rng)
            machine.told.steps += 1
            machine.no_order_executed_twice()
        if rng.random() < 0.7:
            machine.bar()
    except AssertionError as error:
        machine.told.wrong.append(f"seed {seed}: {error}"[:200])
    try:
        machine.teardown()
    except AssertionError as error:
        machine.told.wrong.append(f"seed {seed}: not all could be left: {error}"[:200])
    return machine.told


def _step(machine: BarredTrading, rng: random.Random) -> None:
    symbol = rng.choice(sorted(PRICES))
    direction = rng.choice([Direction.LONG, Direction.SHORT])
    acts: dict[Callable[[], object], int] = {
        lambda: machine.enter(symbol, direction, rng.choice([500, 5_000]), wide=rng.random() < 0.5): 8,
        lambda: machine.move(symbol, rng.randint(-9, 9)): 4,
        lambda: machine.leave(symbol): 2,
        lambda: machine.break_sendings(rng.choices(["", *SENDING_FAULTS], k=3)): 3,
        lambda: machine.break_questions(rng.choices(["", *ASKING_FAULTS], k=3)): 2,
        machine.die_now: 1,
        lambda: machine.die_soon(rng.randint(1, 40)): 2,
        lambda: machine.wait(rng.choice([1, 5, 35])): 4,
        machine.bar: 3,
        machine.admit: 2,
    }
    rng.choices(list(acts), list(acts.values()))[0]()
