"""`make soak`: hundreds of faults under load, and none of the images lost that were acknowledged. Writes docs/bench/soak.md.

SOAK_FAULTS (300), SOAK_IMAGES (20000) and SOAK_SEED say how much of it, and which.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.catalogue import Fault, plan
from tests.faults.injection import ImpossibleError, killed
from tests.faults.recovery import Recovery
from tests.faults.report import Outcome, rows, text, write
from tests.faults.sender import Load
from tests.faults.world import SERVER, World, add_device, make_world, undelivered
from tests.stack.forwarding import status
from tests.stack.harness import copy_program, docker

#: One with its index in SQLite, one in PostgreSQL, where the archive has its own.
_CLIENTS = (
    {"name": "client", "forwardTo": [SERVER]},
    {"name": "second", "index": "postgresql", "forwardTo": [SERVER]},
)
_IMAGES_OF_A_SERIES = (20, 200)
#: Seconds for each fault, on average. What is left of them, the next fault waits for the recovery from the last one, but not too long.
_SECONDS_PER_FAULT, _CALM_SECONDS = 5.8, 45
#: A fault that lasts longer is worth a line.
_SLOW_SECONDS = 30
#: Longer than the longest pause between two tries. And the device outside, which is asked for one UID at a time, takes 13 images a second:
#: under faults it falls thousands of images behind.
_LAST_SECONDS = 1800


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


class Soak:
    def __init__(self, world: World, faults: int, images: int, seed: int) -> None:
        self.outcome = Outcome(seed, clients=len(_CLIENTS))
        self._world = world
        self._images = images
        self._rng = random.Random(seed)
        self._plan = plan(faults, self._rng)
        self._begun = 0

    def run(self) -> None:
        """Deploy, fail, recover, compare."""
        started = time.monotonic()
        _say(f"deploying; {len(self._plan)} faults, {self._images} images, SOAK_SEED={self.outcome.seed}")
        self._world.deploy()
        self._world.archive.count_stores()
        with Recovery(self._world) as recovery:
            with Load(self._world, self._rng, images=_IMAGES_OF_A_SERIES, allowed=self._allowed) as load:
                self._fail(recovery)
                while len(self._world.ledger) < self._images:
                    time.sleep(1)
            self.outcome.given_up = load.given_up
            self._await_end(recovery)
            self.outcome.rows = rows(recovery.episodes, self._world.ledger.acknowledgements)
        self._compare()
        self.outcome.seconds = time.monotonic() - started

    def _allowed(self) -> float:
        """How many images may have been sent by now, so that there are some for each fault."""
        return self._images * (self._begun + 1) / len(self._plan) if self._begun < len(self._plan) else float("inf")

    def _fail(self, recovery: Recovery) -> None:
        started = time.monotonic()
        for number, fault in enumerate(self._plan, 1):
            self._begun = number
            self._one(fault, number, recovery)
            spare = number * _SECONDS_PER_FAULT - (time.monotonic() - started)
            if spare > 0:
                recovery.wait(min(spare, _CALM_SECONDS))
            time.sleep(self._rng.uniform(0, 1))

    def _one(self, fault: Fault, number: int, recovery: Recovery) -> None:
        episode = recovery.begin(fault.name)
        try:
            with fault.begin(self._world, self._rng):
                time.sleep(self._rng.uniform(*fault.seconds))
        except ImpossibleError as error:
            recovery.episodes.remove(episode)
            self._note(f"{fault.name}: left out, this machine cannot do it: {error}")
            return
        except Exception as error:
            self._note(f"fault {number}, {fault.name}: {type(error).__name__}: {error}"[:2000])
            traceback.print_exc()
            self._mend()
        recovery.end(episode)
        if number % 5 == 0 or number == len(self._plan):
            waits = ", ".join(f"{client} {self._waiting(client)}" for client in self._world.clients)
            _say(f"{number}/{len(self._plan)} faults, {len(self._world.ledger)} images acknowledged; waiting: {waits}; last: {fault.name}")
        if episode.ended - episode.began > _SLOW_SECONDS:
            _say(f"fault {number}, {fault.name}, took {episode.ended - episode.began:.0f} s")

    def _waiting(self, client: str) -> str:
        links = self._world.try_status(client)
        return "?" if links is None else "+".join(str(undelivered(link)) for link in links)

    def _mend(self) -> None:
        """After a fault that went wrong: everything runs again."""
        try:
            for name in ("db", SERVER, *self._world.clients, *(f"{client}-forwarder" for client in self._world.clients)):
                if not self._world.part(name).pid:
                    docker("start", self._world.part(name).container)
                self._world.await_service(name)
        except Exception as error:
            self._note(f"could not be mended: {error}")

    def _note(self, line: str) -> None:
        if line not in self.outcome.errors:
            self.outcome.errors.append(line)
            _say(line)

    def _await_end(self, recovery: Recovery) -> None:
        for client in self._world.clients:
            self._world.retry(client)  # what came three times within an hour would wait for the end of that
        _say(f"the load ends with {len(self._world.ledger)} images; waiting for the last")
        started = time.monotonic()
        recovery.wait(_LAST_SECONDS, self._world.idle)
        self.outcome.last_recovery = time.monotonic() - started
        for client in self._world.clients:
            for link in status(self._world.stack, client)["links"]:
                if undelivered(link) or link["setAside"]:
                    self.outcome.not_idle.append(f"{client}: {link}")

    def _compare(self) -> None:
        _say("the archive is started anew, and every image compared")
        with killed(self._world, SERVER):
            pass
        outcome = self.outcome
        outcome.stores, outcome.distinct = self._world.archive.stores()
        outcome.repeated = self._world.ledger.repeated()
        audit = self._world.audit()
        outcome.images, outcome.lost = len(self._world.ledger), audit.lost
        outcome.missing, outcome.wrong = list(audit.missing[:100]), list(audit.wrong[:100])
        assert self._world.device
        held = self._world.ledger.by_identifier(self._world.device.held())
        outcome.lost_at_device = self._world.ledger.audit(held, self._world.ledger.promised()).lost
        outcome.transfers = self._world.device.transfers


def main() -> int:
    """The exit status: 1 where an image was lost, or the soak did not come to its end."""
    faults, images = int(os.environ.get("SOAK_FAULTS") or 300), int(os.environ.get("SOAK_IMAGES") or 20000)
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(10**6))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="orthanc-stack-soak-") as folder:
        world = make_world(copy_program(Path(folder)), _CLIENTS)
        device = add_device(world, Path(folder) / "device")
        soak = Soak(world, faults, images, seed)
        try:
            soak.run()
        except BaseException:
            traceback.print_exc()
            for client in world.clients:  # for whoever looks for the reason
                print(f"--- {client}-forwarder", world.part(f"{client}-forwarder").log("--tail", "50"), sep="\n", flush=True)
            raise
        finally:
            _say("removing the stack")
            world.stack.wipe()
            device.stop()
    print(f"\n{text(soak.outcome)}", flush=True)
    write(soak.outcome)
    return 1 if soak.outcome.lost or soak.outcome.lost_at_device else 0


if __name__ == "__main__":
    sys.exit(main())
