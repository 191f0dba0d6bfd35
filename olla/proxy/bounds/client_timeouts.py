"""Time limits for slow clients: sending a request's head and body, and reading the response.

Bodies and responses may have any size, so they are limited by an initial allowance and a minimum
rate, as in Apache's `RequestReadTimeout body=20,MinRate=500`: each `min_rate` bytes extend the
time by one second. An idle limit alone would let one byte a minute hold a connection; a total
limit alone would cut off legitimate slow connections. Unlike in Apache, the remaining time never
exceeds the initial allowance. Otherwise a client that sends 100 MB fast could hold them for 55
hours.
"""

import msgspec

__all__ = ["ClientTimeouts"]


class ClientTimeouts(msgspec.Struct, frozen=True):
    """Time limits of a client's connection, in seconds; `min_rate` is in bytes per second.

    `idle`: between two requests; `head`: for a request's whole head; `silence`: between two pieces
    of a body; `body`: for a body that arrives below the minimum rate; `send`: for a response that
    is read below it.
    """

    idle: float = 75.0
    head: float = 30.0
    silence: float = 60.0
    body: float = 60.0
    send: float = 60.0
    min_rate: float = 500.0

    def body_left(self, left: float, moved: int) -> float:
        """Return the seconds left for a body after `moved` bytes arrived with `left` to go."""
        return min(left + moved / self.min_rate, self.body)

    def send_left(self, left: float, moved: int) -> float:
        """Return the seconds left to a client that read `moved` bytes with `left` to go."""
        return min(left + moved / self.min_rate, self.send)
