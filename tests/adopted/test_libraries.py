"""Checkpoints of the libraries themselves: trained small, adopted, given back, and loaded by their own."""

import warnings

import pytest
import torch
from command import here
from torch import nn

pytestmark = pytest.mark.live
WORDS = 32


class Sequences(torch.utils.data.Dataset):
    """Sequences that count in threes."""

    def __len__(self):
        return 32

    def __getitem__(self, index):
        words = (index + 3 * torch.arange(8)) % WORDS
        return {"input_ids": words, "labels": words}


@pytest.fixture
def offline(monkeypatch):
    for name, value in {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    warnings.simplefilter("ignore")


def gpt2(dtype=torch.float32):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=8, n_embd=16, n_layer=1, n_head=2)).to(dtype)


def trained(model, folder):
    from transformers import Trainer, TrainingArguments

    given = TrainingArguments(
        str(folder), num_train_epochs=4, per_device_train_batch_size=8, save_strategy="epoch", logging_strategy="epoch",
        report_to=[], learning_rate=1e-2, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=given, train_dataset=Sequences()).train()
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_language_model_of_the_trainer(dtype, tmp_path, offline):
    model = trained(gpt2(dtype), tmp_path / "runs")
    here("adopt", "gpt2", f"from={tmp_path}/runs/checkpoint-*", results=tmp_path / "results")
    here("analyse", "gpt2", "figures=none", "modes=2", "samples=50", results=tmp_path / "results")
    here("give", "gpt2", "method=base", f"to={tmp_path / 'same'}", results=tmp_path / "results")
    here("give", "gpt2", "method=time_mean", f"to={tmp_path / 'mean'}", results=tmp_path / "results")
    from transformers import GPT2LMHeadModel

    same, said = GPT2LMHeadModel.from_pretrained(tmp_path / "same", output_loading_info=True)
    assert not any(said[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert same.dtype == dtype
    words = Sequences()[3]["input_ids"][None]
    with torch.no_grad():
        assert torch.equal(same.eval()(words).logits, model.eval()(words).logits)
    steps = [GPT2LMHeadModel.from_pretrained(tmp_path / "runs" / f"checkpoint-{step}") for step in (4, 8, 12, 16)]
    mean = GPT2LMHeadModel.from_pretrained(tmp_path / "mean")
    for name, own in mean.state_dict().items():
        wanted = torch.stack([step.state_dict()[name].double() for step in steps]).mean(0)
        assert torch.allclose(own.double(), wanted, atol=1e-6 if dtype == torch.float32 else 1e-2), name


def test_an_adapter(tmp_path, offline):
    import peft

    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    model = trained(peft.get_peft_model(gpt2(), config), tmp_path / "runs")
    printed = here("adopt", "lora", f"from={tmp_path / 'runs'}", results=tmp_path / "results").stdout
    assert "PEFT adapter" in printed
    here("give", "lora", "method=base", f"to={tmp_path / 'same'}", results=tmp_path / "results")
    same = peft.PeftModel.from_pretrained(gpt2(), tmp_path / "same").eval()
    words = Sequences()[3]["input_ids"][None]
    with torch.no_grad():
        assert torch.equal(same(words).logits, model.eval()(words).logits)


def test_a_module_of_lightning(tmp_path, offline):
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

        def training_step(self, batch, _):
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

    torch.manual_seed(0)
    module, data = Module(), torch.utils.data.TensorDataset(torch.randn(32, 4))
    keep = ModelCheckpoint(tmp_path / "runs", save_top_k=-1, save_last=True)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=5, accelerator="cpu", callbacks=[keep], **quiet)
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=8))
    printed = here("adopt", "module", f"from={tmp_path / 'runs'}", results=tmp_path / "results").stdout
    assert "the same weights as" in printed
    here("give", "module", "method=base", f"to={tmp_path}/out/", results=tmp_path / "results")
    (path,) = (tmp_path / "out").iterdir()
    same = Module.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    given, wanted = same.state_dict(), module.state_dict()
    assert given.keys() == wanted.keys()
    assert all(torch.equal(given[name], wanted[name]) for name in given)


def test_a_folder_of_accelerate(tmp_path, offline):
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    given = ProjectConfiguration(str(tmp_path), automatic_checkpoint_naming=True)
    accelerator = Accelerator(cpu=True, project_config=given)
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), 1e-2))
    for _ in range(4):
        accelerator.backward(model(torch.randn(8, 4)).square().mean())
        optimizer.step()
        optimizer.zero_grad()
        accelerator.save_state()
    here("adopt", "own", f"from={tmp_path}/checkpoints/checkpoint_*", results=tmp_path / "results")
    here("give", "own", "method=base", f"to={tmp_path / 'same'}", results=tmp_path / "results")
    from safetensors.torch import load_file

    states = load_file(tmp_path / "same" / "model.safetensors")
    own = accelerator.unwrap_model(model).state_dict()
    assert all(torch.equal(states[name], own[name]) for name in own)
