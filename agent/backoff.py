"""Pauses that double up to a cap, then get jitter. Pure: the random number is an argument. Raises nothing."""


def asked(seconds, rnd):
    """Return how long to wait, in seconds, when a receiver asked for so many: never less, and up to half as long again.

    rnd: a random number in [0, 1). All that were told the same at the same moment would come back at the same moment.
    """
    return seconds * (1.0 + 0.5 * rnd)


def pause(base, most, failures, rnd):
    """Return how long to wait, in seconds, after `failures` failures in a row (1 for the first).

    base: the first pause; most: the cap, both in seconds; rnd: a random number in [0, 1).
    The cap comes before the jitter, so that agents that have all reached the cap still spread: the result lies
    between a half and the whole of min(most, base * 2 ** (failures - 1)).
    """
    # 2 ** 63 pauses of any length are for ever; beyond that a float would overflow.
    whole = min(most, base * 2.0 ** min(failures - 1, 63))
    return whole * (0.5 + 0.5 * rnd)
