"""The contract between the harness and a method.

The harness owns the loop, the clock, evaluation, randomness and files; a method owns its mathematics and
its state. A method sees training data and trajectories only, opens no file, seeds nothing and imports
nothing else from the harness but `harness.snapshots`. Its parameters are the keyword arguments of its class;
a bad one raises `ValueError("<parameter> must ..., got ...")` at construction. There are four kinds:

An **Observer** watches a base, causally. `begin(run)` once, then `observe(snapshot)` once per snapshot in
order, w(0) first: at epoch cadence the snapshots after each epoch, and `run.trajectory` already ends with
the one being observed; at a cadence of k steps the states after every k-th optimizer step. A snapshot is
valid during the call only, and is not written into: copy what you keep or change. `propose()` gives the
weights the method stands for now, or None for the base's own; it changes nothing, however often it is called.
`observe` and `propose` are timed as the method's, evaluation is not.

A **Reconstruction** sees the whole run afterwards: `fit(run)` once, then `reconstruct(t)` for any epoch.

A **Brancher** trains on its own from a restart state of the base, as its `Branch` declares. `begin(session)`
sees the state at `start`; then `train_epoch(session)` is called `epochs` times, after each of which
`propose(session)` gives the weights, or None for `session.theta_N`. On resume `begin` runs again at the
start state, then the harness restores weights, buffers and optimizer and calls `load_state_dict`, which
holds only what `begin` cannot recompute.

An **Exchange** is a brancher on a federation, and says what passes between server and clients; what it does not
say is federated averaging. A round goes: `down(k, theta_N)` makes what client k is sent; on the client
`start(client, payload)` makes of it the weights to begin at, `hooks(client)` are called in its training, and
`up(client)` makes the answer; `merge(uploads, theta_N)` makes the new weights of all answers, one after the other in
ascending order of k, and `after_round(theta_N)` has the last word. The three on the client are called on an instance
of its own that was made of the parameters alone, anywhere: a client knows nothing but its payloads and what it kept of
them in `client.state`. Payloads are what is counted: their values' bytes, of bool tensors a bit for each. The model's
buffers go both ways beside them and are averaged by the harness. A payload is never written into.

State dicts are nested dicts, lists and tuples of tensors, numbers, strings and None.

A method that is **linear** in the base's snapshots, w^ = sum_t c(t) w(t) with sum_t c(t) = 1, joins its likes by a
table `kernel` of these coefficients: its coefficients times the snapshots are the weights that it proposes last. One
line per snapshot, with the columns `mode` (a text: `all` where all weights have one kernel, otherwise a name per group
of weights that share one), `epoch` (where the snapshot lies; between two epochs' ends, at a step, it has a fraction)
and `coefficient`. Where there are several modes a column `share` says what part of the weights each has. Long kernels
may be shortened: a line that stands for several neighbouring snapshots has the sum of their coefficients, at their
mean epoch, their number in a column `snapshots` and the sum of the squared coefficients in `squares`. From it the
harness takes the columns `age` and `n_eff` of the frame, the figure of kernels, and which methods are nearly one.

Shape suffixes: N trainable weights, T snapshots, B a block of weights or a mini-batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from harness.averaging import weighted_mean as weighted_mean

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor, nn

Buffers: TypeAlias = "Mapping[str, Tensor]"
State = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """The state of a base after `t` completed epochs (0 is the initial state) and `step` optimizer steps."""

    t: int
    step: int
    theta_N: Tensor
    """float32 trainable parameters, in `Layout` order"""
    buffers: Buffers
    """the model's own buffers, such as BatchNorm's running statistics"""


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the tensors inside theta_N, in C order; tied parameters stand once."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(prod(shape) for shape in self.shapes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each tensor starts in theta_N."""
        return (0, *accumulate(self.sizes))[:-1]

    @property
    def N(self) -> int:
        return sum(self.sizes)


class Trajectory(Protocol):
    """Recorded snapshots in order of t, read-only, never beyond the present."""

    def __len__(self) -> int: ...

    @property
    def ts(self) -> tuple[int, ...]:
        """The epochs of the snapshots."""

    def __getitem__(self, index: int) -> Snapshot: ...

    def window(self, first: int, last: int) -> Trajectory:
        """The snapshots whose t lies in first..last, both included."""

    def blocks(self, max_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
        """All weights in consecutive blocks (start, stop, W_TB) of at most `max_bytes` float32 values."""


def _no_probe(theta_N: Tensor) -> float:
    raise RuntimeError("probe_loss may be called by a method with needs_probe alone")


@dataclass(frozen=True)
class Run:
    """What an observer or a reconstruction knows of the base it follows.

    `trajectory` holds the snapshots that the method declared in `needs`; `rng(purpose)` gives a fresh CPU
    generator that depends on the base's seed and the purpose alone: the same live, replayed, on any device.
    """

    layout: Layout
    trajectory: Trajectory
    epochs: int
    steps_per_epoch: int
    device: torch.device
    rng: Callable[[str], torch.Generator]
    probe_loss: Callable[[Tensor], float] = _no_probe
    """The loss of weights theta_N on the probe, for a method with `needs_probe`, RuntimeError for any other.

    The probe is a fixed slice of the training split, 512 images that the base was trained on too, or where the data
    set has a `probe_size` images that nothing is trained on. They are not augmented, dropout is off, and norms take the
    statistics of the slice itself. Every call is one forward pass of the probe's images, counted and timed as the
    method's; model, buffers and random streams stay as they were.
    """


@dataclass(frozen=True)
class Proposal:
    """Weights to evaluate, with their own buffers where a method models those too; never written into.

    Its tensors are neither the method's state nor the live weights: they must outlive the next call.
    """

    theta_N: Tensor
    buffers: Buffers | None = None


@dataclass(frozen=True)
class Plane:
    """Two directions in weight space with the run's path over them, for pictures of the loss.

    A point (u, v) stands for the weights `origin_N + u * axes_2N[0] + v * axes_2N[1]`.
    """

    origin_N: Tensor
    axes_2N: Tensor
    path_T2: Tensor
    """float64 coordinates of the run after each epoch of `ts`"""
    ts: tuple[int, ...]
    labels: tuple[str, str]
    """what the two axes are, for a figure"""


class Method(ABC):
    """What all three kinds may declare and report."""

    kind: ClassVar[Literal["observer", "reconstruction", "brancher"]]
    proposes_buffers: ClassVar[bool] = False
    """whether its proposals carry buffers, so that `batchnorm: averaged` is possible"""
    needs_probe: ClassVar[bool] = False
    """whether an observer or a reconstruction calls `run.probe_loss`; it may follow from the parameters"""
    needs_even_steps: ClassVar[bool] = False
    """whether it takes snapshots to lie at equal distances in time, which those of somebody's own training may not"""

    def needs(self, epochs: int) -> tuple[int, int] | None:
        """First and last t of the stored snapshots that this method reads in a base of `epochs` epochs.

        Raises ValueError, naming the parameter, where the method does not fit that many epochs.
        """
        return None

    def epochs_read(self, epochs: int) -> int:
        """The last epoch of a base of `epochs` epochs that an observer or a reconstruction reads; its last weights
        follow from what was seen by then, and it is charged so many epochs of training."""
        return epochs

    def memory_floats(self, N: int) -> int:
        """float32 values held beside the model, for the plan's estimate."""
        return N

    def scalars(self) -> dict[str, float]:
        """Numbers of this epoch for history and tracking, such as mean |rho|.

        A brancher's `trainable_fraction`, where it trains fewer weights, becomes the table's column of that name.
        """
        return {}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables at the end of the run, such as the size of every mode.

        The report draws its figures from tables of certain names and columns (`harness.report.figures.registry`).
        """
        return {}

    def fitted(self) -> State:
        """What was fitted, at the end of the run, for who asks for it (`save=final`); empty where nothing is."""
        return {}

    def plane(self) -> Plane | None:
        """The plane of a fitted reconstruction over which its user may want to see the loss; None without one."""
        return None


class Observer(Method):
    """Watches a base; see the module's text."""

    kind = "observer"
    cadence: Literal["epoch"] | int = "epoch"
    """when `observe` is called: after every epoch, or after every so many optimizer steps; it may be a parameter"""

    @abstractmethod
    def begin(self, run: Run) -> None:
        """Called once before the first snapshot: forget all state, and keep of `run` what is needed."""

    @abstractmethod
    def observe(self, snapshot: Snapshot) -> None:
        """Take in one snapshot, w(0) first; it is valid during the call only, so copy what you keep."""

    @abstractmethod
    def propose(self) -> Proposal | None:
        """The weights that the method stands for now, None for the base's own; changes nothing."""

    @abstractmethod
    def state_dict(self) -> State:
        """All that the method needs to go on after what it has observed, as nested dicts, lists and tensors."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Be in the state that `state_dict` gave; `begin` was called before."""


class Reconstruction(Method):
    """Sees the whole run; never in time-to-target, never called a training method."""

    kind = "reconstruction"

    def needs(self, epochs: int) -> tuple[int, int] | None:
        """As in `Method`; all snapshots unless a class says otherwise."""
        return 0, epochs

    @abstractmethod
    def fit(self, run: Run) -> None:
        """Called once after the run: read `run.trajectory`, which may be kept for `reconstruct`."""

    @abstractmethod
    def reconstruct(self, t: int) -> Proposal:
        """The weights that the model of the run has after epoch t, for any t from 0 to the last; changes nothing."""


@dataclass(frozen=True)
class Branch:
    """Where a brancher leaves its base: it starts at `start`, has read the base up to `prefix` >= start,
    and trains `epochs` of its own. Its clock is prefix + own epochs; the prefix is charged as shared."""

    start: int
    prefix: int
    epochs: int

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"a branch must train at least 1 epoch, got {self.epochs}")
        if not 0 <= self.start <= self.prefix:
            raise ValueError(f"start must be between 0 and the prefix {self.prefix}, got {self.start}")


@dataclass(frozen=True)
class Batch:
    """Images ready for the model, and what one batch means at every point: its augmentation is already in
    `images_B`, its dropout masks follow from `seed`."""

    images_B: Tensor
    labels_B: Tensor
    seed: int


Schedule = Callable[[float], float]
"""Learning-rate factor after a (fractional) number of epochs since the optimizer, or the schedule, was made."""

OptimizerFactory: TypeAlias = "Callable[..., torch.optim.Optimizer]"


@dataclass(frozen=True)
class Federation:
    """The clients among which a base's images are dealt."""

    clients: int
    per_round: int
    """clients that take part in a round"""
    local_epochs: int
    """epochs that a client trains in a round"""
    images: tuple[int, ...] = ()
    """training images of every client; none where a method is asked whether it fits before the data are read"""

    @property
    def partial(self) -> bool:
        """Whether clients miss rounds."""
        return self.per_round < self.clients


class Session(Protocol):
    """All that a brancher gets. Every pass over data is counted and timed by the harness.

    torch's random stream is seeded anew before every `train_epoch` of the brancher. A brancher that steps on its
    own, over `batches`, also follows its own schedule.
    """

    branch: Branch
    layout: Layout
    trajectory: Trajectory
    """the base's snapshots that the method declared in `needs`: 0..prefix unless it says otherwise"""
    parameters: list[nn.Parameter]
    """the trainable parameters in Layout order: views into theta_N"""
    epochs: int
    """of the base"""
    steps_per_epoch: int
    federation: Federation | None
    """what an exchange trains on, whose epochs are rounds; None for every other brancher"""

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The base's with its state, until `new_optimizer`."""

    @property
    def theta_N(self) -> Tensor:
        """The live weights, (N,) float32: changed by training, writable in place under no_grad."""

    @theta_N.setter
    def theta_N(self, value_N: Tensor) -> None: ...

    @property
    def buffers(self) -> Buffers: ...

    @property
    def t(self) -> int:
        """prefix + own completed epochs; it moves on between two calls of the brancher's `train_epoch`."""

    @property
    def device(self) -> torch.device: ...

    def rng(self, purpose: str) -> torch.Generator: ...

    def new_optimizer(
        self, factory: OptimizerFactory, schedule: Schedule | None = None, **kwargs: Any
    ) -> torch.optim.Optimizer:
        """Replace the optimizer by `factory(parameters, **kwargs)`, which ends the base's schedule.

        In `begin` only, so that resume can make it again; RuntimeError later.
        """

    def set_schedule(self, factor: Schedule) -> None:
        """End the base's schedule, and keep its optimizer with its state.

        From here on the rate of every step is the one that the optimizer has now times `factor(e)`, e the fractional
        number of epochs trained since, taken at the step's end. A rate that is set in the optimizer's groups instead
        is overwritten by the loop. In `begin` only; RuntimeError later.
        """

    def reset_optimizer(self) -> None:
        """Forget the optimizer's state (momentum, moments), and keep its rate and schedule."""

    @property
    def moving_N(self) -> Tensor:
        """Which weights move, (N,) bool, a copy: those that had a gradient other than 0 at some step of the first
        epoch or at the last step of a later one, in the base up to the branch's start and in the branch since."""

    @property
    def gradient_N(self) -> Tensor:
        """The gradient that the last backward pass left, as a new vector."""

    @gradient_N.setter
    def gradient_N(self, value_N: Tensor) -> None: ...

    def train_epoch(
        self,
        batch_size: int | None = None,
        augment: bool = True,
        after_backward: Callable[[], None] | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        """One epoch of the harness's own loop, with two hooks."""

    def batches(self, batch_size: int | None = None, augment: bool = True) -> Iterator[Batch]:
        """This epoch's mini-batches, in the seeded order of the epoch."""

    def loss(self, batch: Batch) -> float:
        """Mean loss at theta_N in training mode with batch statistics; buffers unchanged."""

    def gradient(self, batch: Batch) -> tuple[float, Tensor]:
        """Mean loss and its gradient g_N at theta_N, under the same terms as `loss`."""

    def probe_loss(self) -> float:
        """Loss on the probe without augmentation or dropout, with the statistics of the probe itself: what a method
        may accept or reject by. The probe is a fixed slice of the training split, or `dataset.probe_size` images that
        nothing is trained on."""


class Brancher(Method):
    """Trains from a restart state of the base; see the module's text."""

    kind = "brancher"
    federated: ClassVar[bool] = False
    """whether it runs on a federation, and nowhere else"""
    gradient_space: ClassVar[Literal["full", "subspace"]] = "full"
    """where its gradients are counted: those it uses in a subspace, or for a part of the weights, apart"""
    batch_size: int | None = None
    """of its mini-batches where they are its own: held to the training split's size before anything trains"""

    @abstractmethod
    def branch(self, epochs: int) -> Branch:
        """From the parameters and the base's epochs alone; ValueError where they do not fit."""

    def needs(self, epochs: int) -> tuple[int, int] | None:
        """As in `Method`; the snapshots up to the prefix unless a class says otherwise."""
        return 0, self.branch(epochs).prefix

    @abstractmethod
    def begin(self, session: Session) -> None:
        """Called at the base's state after epoch `start`, on resume too: set the schedule or the optimizer, and
        derive from the trajectory what training needs."""

    @abstractmethod
    def train_epoch(self, session: Session) -> None:
        """Train one epoch: by `session.train_epoch`, or over `session.batches` in steps of its own."""

    def propose(self, session: Session) -> Proposal | None:
        """The weights to evaluate after an epoch, None for the live ones; changes nothing."""
        return None

    @abstractmethod
    def state_dict(self) -> State:
        """What `begin` cannot compute again; weights, buffers and optimizer are the harness's."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Be in the state that `state_dict` gave; `begin` was called before."""


Payload: TypeAlias = "Mapping[str, Tensor]"
"""what is handed over, by names of the method's own"""
Hook: TypeAlias = "Callable[[], None] | None"


class Upload(NamedTuple):
    """A client's answer, and how it counts in an average."""

    k: int
    weight: int
    """its images, or 1 where clients count alike"""
    payload: Payload


class Client(Protocol):
    """What an exchange's three functions on a client get, in one round of it."""

    k: int
    """its number, from 0 on"""
    t: int
    """the round's, counted from 0"""
    rounds: int
    """of the base"""
    layout: Layout
    federation: Federation
    start_N: Tensor
    """the weights that `start` gave, (N,), for `hooks` and `up`; never written into"""
    parameters: list[nn.Parameter]
    """the trainable parameters in Layout order: views into theta_N"""
    state: State
    """the client's own, which it finds again in its next round: empty in its first"""

    @property
    def model(self) -> nn.Module: ...

    @property
    def theta_N(self) -> Tensor:
        """The live weights, (N,) float32: changed by training, writable in place under no_grad by the hooks."""

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def gradient_N(self) -> Tensor:
        """The gradient that the last backward pass left, as a new vector."""

    @gradient_N.setter
    def gradient_N(self, value_N: Tensor) -> None: ...

    @property
    def steps(self) -> int:
        """Optimizer steps done in this round."""

    def rng(self, purpose: str) -> torch.Generator:
        """A fresh CPU generator of the base's seed and the purpose alone, the same that the server's session gives."""


class Exchange(Brancher):
    """What passes between server and clients; see the module's text. As it stands it is federated averaging.

    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data (AISTATS 2017): all
    weights go both ways, and the new ones are sum_k n_k theta_k / sum_k n_k, n_k the images of client k.
    """

    federated: ClassVar[bool] = True

    def branch(self, epochs: int) -> Branch:
        return Branch(start=0, prefix=0, epochs=epochs)

    def check(self, federation: Federation, optimizer: str, params: Mapping[str, Any]) -> None:
        """ValueError, naming the parameter, where the method does not run on that federation, or with the clients'
        optimizer: its class's full name and arguments."""

    def begin(self, session: Session) -> None:
        """The server's side, at the state of the start."""

    def train_epoch(self, session: Session) -> None:
        session.train_epoch()

    def down(self, k: int, theta_N: Tensor) -> Payload:
        """What client k is sent; `theta_N` are the server's weights. Called once per client of a round, ascending."""
        return {"theta_N": theta_N}

    def start(self, client: Client, payload: Payload) -> Tensor:
        """On the client: the weights (N,) to train from."""
        return payload["theta_N"]

    def hooks(self, client: Client) -> tuple[Hook, Hook]:
        """On the client: what is called after every backward pass, and after every optimizer step."""
        return None, None

    def up(self, client: Client) -> Payload:
        """On the client: what the server is sent."""
        return {"theta_N": client.theta_N}

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        """The new weights (N,) float32 of all answers, which come one after the other; `theta_N` are the round's old
        ones."""
        return weighted_mean((upload.weight, upload.payload["theta_N"]) for upload in uploads).float()

    def after_round(self, theta_N: Tensor) -> Tensor:
        """The server's weights after the round, where others than `merge` gave."""
        return theta_N

    def state_dict(self) -> State:
        """The server's side."""
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
