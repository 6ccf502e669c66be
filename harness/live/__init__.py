"""What follows a training of your own, in your own loop: snapshots of it, and any observer of ours.

    recorder = Recorder(model, "runs/mine")
    average = Watch(model, EMA(half_life=2), epochs, steps_per_epoch)

`harness.live.lightning` and `harness.live.trainer` are callbacks of Lightning and of Hugging Face's Trainer, which
need these libraries (`pip install traindyn[live]`). Training is the same with and without them, to the last bit.
"""

from harness.live.recorder import Recorder
from harness.live.watch import Watch
from harness.weights import kept, load_weights, recalibrate, undisturbed

__all__ = ["Recorder", "Watch", "kept", "load_weights", "recalibrate", "undisturbed"]
