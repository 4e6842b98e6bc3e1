"""Uptime: a clock that stands still while no device is answered. Pure.

Made from the times of the journal's records, in the order of its lines. Nothing that is measured by
it runs backwards, and a time in which no device was heard makes no device silent.
"""

# A clock that runs is corrected by seconds at most. Where it is set by more, times before it do not
# compare with times after it.
JUMP_MS = 5 * 60 * 1000
# Where requests come at random, one gap in 500 million is so many times as long as the mean.
_MEANS = 20
# Where they come in bursts, the longest recent gap says more than the mean.
_USUALS = 4
_STEPS_TO_LEARN = 20
_HALF_LIFE_MS = 6 * 3600 * 1000
_STEPS_OF_MEAN = 64


class Uptime:
    """Milliseconds in which devices were answered, since the first record.

    Attributes:
        up_ms: at the newest record.
        restarted_ms: when soak and silence began again, since the server's clock had jumped.
        jumps: how often it did.
    """

    def __init__(self) -> None:
        self.up_ms = 0
        self.restarted_ms = 0
        self.jumps = 0
        self._last_ms: int | None = None
        self._steps = 0
        self._mean = 0.0
        self._usual = 0.0

    def advance(self, now_ms: int) -> None:
        """Take the time of the next record, milliseconds since the epoch."""
        if self._last_ms is None:
            self._last_ms = now_ms
            return
        step = now_ms - self._last_ms
        if step <= 0:
            if step < -JUMP_MS:
                self.jump(now_ms)
            return
        self._last_ms = now_ms
        longest = self._longest()
        if step > longest:
            # Where that happens again and again, it is how this fleet polls.
            self.up_ms += min(step, round(self._usual))
            self._usual = max(self._usual * _USUALS, step / 16)
            return
        self.up_ms += step
        self._learn(step)

    def _learn(self, step: int) -> None:
        self._steps += 1
        self._mean += (step - self._mean) / min(self._steps, _STEPS_OF_MEAN)
        decayed = self._usual * (1 - min(step / _HALF_LIFE_MS, 0.5))
        self._usual = max(step, decayed)

    def _longest(self) -> float:
        if self._steps < _STEPS_TO_LEARN:
            return float("inf")
        return max(_MEANS * self._mean, _USUALS * self._usual)

    def at(self, now_ms: int) -> int:
        """Return what `up_ms` is at a time after the newest record, as far as can be known."""
        if self._last_ms is None:
            return self.up_ms
        since = max(now_ms - self._last_ms, 0)
        if self._steps >= _STEPS_TO_LEARN:
            since = min(since, round(self._usual))
        return self.up_ms + since

    def unheard_ms(self, now_ms: int) -> int:
        """Return for how long there was no record, by the clock on the wall."""
        return 0 if self._last_ms is None else max(now_ms - self._last_ms, 0)

    def outage(self, from_ms: int, to_ms: int) -> None:
        """Leave out a time in which the server did not answer, if no record is younger."""
        if self._last_ms is None or self._last_ms >= to_ms:
            return
        if from_ms > self._last_ms:
            self.advance(from_ms)
        self._last_ms = to_ms

    def jump(self, now_ms: int) -> None:
        """Go on from another time; soak and silence begin again."""
        self._last_ms = now_ms
        self.restarted_ms = self.up_ms
        self.jumps += 1

    def state(self) -> tuple[object, ...]:
        """Return all that is known, for `restore`."""
        return tuple(vars(self).values())

    def restore(self, state: tuple[object, ...]) -> None:
        """Take all that `state` returned, in place of what is known here."""
        for name, value in zip(vars(self), state, strict=True):
            setattr(self, name, value)
