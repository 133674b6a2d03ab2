"""Senders that repeat themselves, correct themselves, and come in twos; a chain of nodes."""

from __future__ import annotations

import threading

from tests.faults.conftest import ids
from tests.faults.sender import Sender
from tests.faults.world import SCANNER, World


def test_the_same_images_three_times(world: World, scanner: Sender) -> None:
    images = list(world.new_series(40).images())
    for _ in range(3):
        scanner.must_send(world.node("client"), images)
    world.recover(ids(images))
    assert len(world.archive.files(ids(images))) == len(images)


def test_a_second_content_replaces_the_first(world: World, scanner: Sender) -> None:
    series = world.new_series(20)
    images = list(series.images())
    scanner.must_send(world.node("client"), images)
    newer = [series.image(number, version=1) for number in range(5)]
    assert newer[0].md5 != images[0].md5
    scanner.must_send(world.node("client"), newer)
    world.recover(ids(images))
    newest = [series.image(7, version=2)]
    scanner.must_send(world.node("client"), newest)
    world.recover(ids(images))


def test_two_clients_at_once_with_series_of_their_own_and_one_of_both(world: World) -> None:
    shared = list(world.new_series(30).images())
    own = {client: list(world.new_series(30).images()) for client in ("client", "second")}
    senders = [
        threading.Thread(target=Sender(SCANNER, world.ledger).must_send, args=(world.node(client), [*shared, *images]))
        for client, images in own.items()
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    everything = ids([*shared, *own["client"], *own["second"]])
    world.recover(everything)
    assert len(world.archive.files(everything)) == 90


def test_a_chain_and_two_destinations(world: World, scanner: Sender) -> None:
    images = list(world.new_series(30).images())
    scanner.must_send(world.node("room"), images)
    world.recover(ids(images))
    for name in ("client", "spare"):
        assert world.audit(ids(images), archive=world.at(name)).lost == 0
