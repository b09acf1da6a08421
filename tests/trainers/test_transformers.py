"""transformers' Trainer: its scripts run, renamed keys are refused, and the callback does what a loop of one's own does."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import popup
from popup.search.network import search_of
from tests.trainers.scripts import run, scripts

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
from popup.callbacks import share_by_tokens, transformers_callback

pytestmark = pytest.mark.filterwarnings("ignore")
VIT, GPT2 = scripts("transformers")


@pytest.mark.parametrize("script", [VIT, GPT2], ids=["ViT", "GPT-2"])
def test_the_script_runs_and_its_search_goes_on_from_a_checkpoint(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run(script)
    net = found["net"]
    assert search_of(net).steps == search_of(found["resumed"]).steps > 0 and search_of(net).progress == 1
    assert "save_pretrained" not in vars(net) or vars(net)["save_pretrained"].__name__ == "_refuse_saving"


def small(method="edge_popup", seed=0):
    torch.manual_seed(0)
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                    image_size=4, patch_size=2, num_channels=1, num_labels=2)
    return popup.attach(transformers.ViTForImageClassification(config), er_p=0.5, k=0.5, method=method, seed=seed)


def trainer(net, out, callbacks, **options):
    images = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    data = [{"pixel_values": image, "labels": place % 2} for place, image in enumerate(images)]
    given = {"per_device_train_batch_size": 8, "max_steps": 3, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0,
             "lr_scheduler_type": "constant", "report_to": "none", "use_cpu": True, "disable_tqdm": True, **options}
    return transformers.Trainer(net, transformers.TrainingArguments(str(out), **given), train_dataset=data, eval_dataset=data,
                                callbacks=callbacks)


def test_without_the_callback_renamed_keys_are_refused_and_nothing_is_loaded(tmp_path):
    net = small()
    writer = trainer(net, tmp_path, [], save_steps=2)
    try:
        writer.train()
    except popup.UsageError as refused:  # a popup that refuses to write such a file at all
        assert "save_pretrained" in str(refused)
        return
    other = small()
    before = [score.detach().clone() for score in popup.scores(other)]
    with pytest.raises(popup.UsageError, match="a state_dict holds the states of all attached layers, or of none"):
        trainer(other, tmp_path, []).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(map(torch.equal, before, popup.scores(other)))


def test_saving_is_the_callbacks_while_it_trains_and_refused_otherwise(tmp_path):
    """Trainer's own save_model asks the network to save itself; best checkpoints are read back by the search's own names."""
    net = small()
    work = trainer(net, tmp_path, [transformers_callback()], save_steps=1, eval_strategy="steps", eval_steps=1,
                   load_best_model_at_end=True, metric_for_best_model="loss")
    work.train()
    best = small()
    best.load_state_dict(load_file(f"{work.state.best_model_checkpoint}/model.safetensors"))
    assert all(map(torch.equal, popup.scores(net), popup.scores(best)))
    with pytest.raises(popup.UsageError, match=r"is attached, and save_pretrained .*merge\(net\)\.save_pretrained.*callback"):
        work.save_model(str(tmp_path / "end"))
    popup.merge(net).save_pretrained(tmp_path / "end")
    images = torch.randn(2, 1, 4, 4)
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path / "end").eval()
    assert torch.equal(again(images).logits, net.eval()(images).logits)


def test_a_search_of_another_source_is_not_gone_on_with(tmp_path):
    trainer(small(), tmp_path, [transformers_callback()], save_steps=2).train()
    other = small(seed=1)
    before = [score.detach().clone() for score in popup.scores(other)]
    with pytest.raises(popup.UsageError, match=r"of another source|of this source"):
        trainer(other, tmp_path, [transformers_callback()]).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(map(torch.equal, before, popup.scores(other)))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_advances_and_adds_the_penalty_as_a_loop_of_ones_own(tmp_path, accumulate):
    """gem_miner has a penalty and changes on the way; a step sees all images, in whatever order."""
    net, own = small("gem_miner"), small("gem_miner")
    work = trainer(net, tmp_path, [transformers_callback()], per_device_train_batch_size=8 // accumulate,
                   gradient_accumulation_steps=accumulate, save_strategy="no")
    images, labels = (torch.stack([torch.as_tensor(row[name]) for row in work.train_dataset])
                      for name in ("pixel_values", "labels"))
    work.train()
    optimizer = torch.optim.SGD(popup.scores(own), lr=0.5)
    for step in range(3):
        optimizer.zero_grad()
        (own.train()(images, labels=labels).loss + popup.penalty(own)).backward()
        optimizer.step()
        popup.advance(own, (step + 1) / 3)
    for mine, theirs in zip(popup.scores(net), popup.scores(own), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert not net._forward_hooks or len(net._forward_hooks) == len(own._forward_hooks)


def test_what_it_cannot_do_is_one_line(tmp_path):
    with pytest.raises(popup.UsageError, match=r"has 0 attached networks in it: .*popup\.attach"):
        trainer(popup.detach(small()), tmp_path, [transformers_callback()]).train()
    with pytest.raises(popup.UsageError, match="gives no loss to add it to"):
        trainer(small("gem_miner"), tmp_path, [transformers_callback()], label_smoothing_factor=0.1).train()


def test_a_training_that_ended_by_an_error_leaves_no_second_penalty(tmp_path):
    class Halt(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **held):
            raise RuntimeError("halt")

    net = small("gem_miner")
    with pytest.raises(RuntimeError, match="halt"):
        trainer(net, tmp_path, [transformers_callback(), Halt()]).train()
    hooks = len(small()._forward_hooks)
    assert len(net._forward_hooks) == hooks + 1
    trainer(net, tmp_path, [transformers_callback()], save_strategy="no").train()
    assert len(net._forward_hooks) == hooks and not any(name == "_popup_undo" for name in vars(net))


def test_the_penalty_is_counted_once_however_many_processes_share_a_step(tmp_path):
    given = {"gradient_accumulation_steps": 4, "world_size": 2}
    assert share_by_tokens(SimpleNamespace(**given, average_tokens_across_devices=True)) == 1 / 8
    assert share_by_tokens(SimpleNamespace(**given, average_tokens_across_devices=False)) == 1 / 4
    assert share_by_tokens(SimpleNamespace(**given)) == 1 / 4, "versions that have no such option"
    assert share_by_tokens(transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")) == 1
