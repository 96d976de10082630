"""Room for requests is taken and given back; who would wait too long is refused at once, and told when to return."""

from __future__ import annotations

import pytest

from app.errors import DeadlineExceededError, OverloadedError
from app.serving import admission
from app.serving.admission import Admission


class Clock:
    """A time that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(admission, "time", clock)
    return clock


def work_at(pace_s: float, inside: Admission, clock: Clock) -> None:
    """Lets a hundred images pass, one by one."""
    for _ in range(100):
        with inside.admit():
            clock.now += pace_s


def test_what_was_taken_is_given_back_whatever_happens() -> None:
    inside = Admission(2, 100)

    def fail_inside() -> None:
        with inside.hold_bytes() as held, inside.admit(2):
            held.add(60)
            assert (inside.pending_images, inside.pending_bytes) == (2, 60)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert (inside.pending_images, inside.pending_bytes) == (0, 0)


def test_bytes_that_do_not_fit_are_not_counted() -> None:
    inside = Admission(2, 100)
    with inside.hold_bytes() as held:
        held.add(60)
        with pytest.raises(OverloadedError), inside.hold_bytes() as other:
            other.add(41)
        assert inside.pending_bytes == 60
        held.add(40)


def test_retry_after_is_the_time_that_half_the_queue_takes(clock: Clock) -> None:
    inside = Admission(20, 100)
    work_at(0.5, inside, clock)

    with inside.admit(20), pytest.raises(OverloadedError) as refusal:
        inside.check()
    assert refusal.value.retry_after_s == 5


def test_request_whose_time_would_be_up_in_the_queue_is_refused_at_once(clock: Clock) -> None:
    inside = Admission(20, 100)
    work_at(0.5, inside, clock)

    with inside.admit(8):  # four seconds of work
        inside.check(deadline=clock.now + 4.1)
        with pytest.raises(OverloadedError, match=r"4\.0 seconds"):
            inside.check(deadline=clock.now + 3.9)


def test_idle_service_admits_whatever_its_pace_was(clock: Clock) -> None:
    inside = Admission(20, 100)
    work_at(60, inside, clock)

    inside.check(deadline=clock.now + 0.1)


def test_requests_that_time_out_do_not_look_like_a_fast_service(clock: Clock) -> None:
    inside = Admission(20, 100)
    work_at(0.5, inside, clock)

    with inside.admit(8):
        clock.now += 0.5
        for _ in range(100):
            with pytest.raises(DeadlineExceededError), inside.admit():
                raise DeadlineExceededError("Too late.")
        with pytest.raises(OverloadedError):
            inside.check(deadline=clock.now + 3.9)
