"""A user's own observer: the latest snapshot, scaled."""

from harness.method import Observer, Proposal


class LastWeights(Observer):
    """w(t) times `scale`."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def begin(self, run):
        self.last_N = None

    def observe(self, snapshot):
        self.last_N = snapshot.theta_N.clone()

    def propose(self):
        return Proposal(self.last_N * self.scale)

    def state_dict(self):
        return {"last_N": self.last_N}

    def load_state_dict(self, state):
        self.last_N = state["last_N"]
