"""One face over memory and files."""

from __future__ import annotations

import pytest
import torch

from harness.method import Snapshot
from harness.snapshots import MemoryTrajectory, block_bounds
from harness.storage.files import CorruptFile
from harness.storage.trajectory import (
    StoredTrajectory,
    read_snapshot,
    snapshot_path,
    stored_ts,
    write_snapshot,
)

CPU = torch.device("cpu")


@pytest.fixture
def snapshots():
    torch.manual_seed(0)
    return [Snapshot(t, 10 * t, torch.randn(23), {"bn.mean": torch.randn(3)}) for t in range(6)]


@pytest.fixture
def folder(tmp_path, snapshots):
    for snapshot in snapshots:
        write_snapshot(tmp_path, snapshot)
    return tmp_path


def test_stored_snapshot_is_what_was_written(folder, snapshots):
    back = read_snapshot(folder, 4, CPU)
    assert (back.t, back.step) == (4, 40)
    assert torch.equal(back.theta_N, snapshots[4].theta_N)
    assert torch.equal(back.buffers["bn.mean"], snapshots[4].buffers["bn.mean"])


@pytest.mark.parametrize("max_bytes", [1, 96, 200, 1 << 20])
def test_blocks_over_memory_and_files_agree_and_tile_the_weights(folder, snapshots, max_bytes):
    memory = list(MemoryTrajectory.of(snapshots).blocks(max_bytes))
    stored = list(StoredTrajectory(folder, CPU).blocks(max_bytes))
    assert [b[:2] for b in memory] == [b[:2] for b in stored]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(memory, stored, strict=True))
    whole_TN = torch.cat([block for _, _, block in stored], dim=1)
    assert torch.equal(whole_TN, torch.stack([s.theta_N for s in snapshots]))
    widest = max(stop - start for start, stop, _ in stored)
    assert widest == 1 or 4 * len(snapshots) * widest <= max_bytes


def test_block_bounds_cover_everything_once():
    assert list(block_bounds(10, 2, 32)) == [(0, 4), (4, 8), (8, 10)]
    assert list(block_bounds(0, 3, 100)) == []


def test_window_follows_the_present_and_never_exceeds_it(folder, snapshots):
    trajectory = StoredTrajectory(folder, CPU)
    trajectory.rewind(1)
    window = trajectory.window(1, 3)
    assert window.ts == (1,)
    trajectory.extend(2)
    assert window.ts == (1, 2)
    trajectory.extend(3)
    trajectory.extend(4)
    assert window.ts == (1, 2, 3)
    assert window.window(2, 9).ts == (2, 3)
    assert window[-1].t == 3
    assert MemoryTrajectory.of(snapshots).window(1, 3).ts == (1, 2, 3)


def test_stored_ts_ignores_what_was_set_aside(folder):
    snapshot_path(folder, 2).rename(folder / "00002.safetensors.corrupt-1234")
    (folder / ".00003.safetensors.abc.tmp").write_bytes(b"half")
    assert stored_ts(folder) == (0, 1, 3, 4, 5)


def test_damaged_snapshot_is_found_by_every_way_of_reading(folder):
    path = snapshot_path(folder, 3)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=r"00003\.safetensors"):
        StoredTrajectory(folder, CPU)[3]
    with pytest.raises(CorruptFile, match=r"00003\.safetensors"):
        list(StoredTrajectory(folder, CPU).blocks(100))


def test_snapshot_under_another_name_is_refused(folder):
    snapshot_path(folder, 5).rename(snapshot_path(folder, 7))
    with pytest.raises(CorruptFile, match="holds t = 5"):
        read_snapshot(folder, 7, CPU)
