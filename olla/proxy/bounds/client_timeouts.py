"""How slow a client may be: with its request's head and body, and in reading its answer.

Bodies and answers of any size have to pass, so what bounds them is a first allowance and a least
rate, as in Apache's `RequestReadTimeout body=20,MinRate=500`: each `min_rate` bytes extend the
time by a second. A limit on silence alone lets one byte a minute hold a connection, and a limit on
the whole alone cuts honest slow lines. Unlike there, the time left is never more than the first
allowance: else who sends 100 MB fast may hold them for 55 hours.
"""

import msgspec

__all__ = ["ClientTimeouts"]


class ClientTimeouts(msgspec.Struct, frozen=True):
    """Limits for one client's connection, in seconds; `min_rate` in bytes a second.

    `idle`: between two requests; `head`: a request's whole head; `silence`: between two pieces of
    a body; `body`: a body that comes at less than the least rate; `send`: an answer that is read
    at less than that.
    """

    idle: float = 75.0
    head: float = 30.0
    silence: float = 60.0
    body: float = 60.0
    send: float = 60.0
    min_rate: float = 500.0

    def body_left(self, left: float, moved: int) -> float:
        """Seconds left for a body, of which so many bytes came when `left` were left."""
        return min(left + moved / self.min_rate, self.body)

    def send_left(self, left: float, moved: int) -> float:
        """Seconds left for reading, of a client that read so much when `left` were left."""
        return min(left + moved / self.min_rate, self.send)
