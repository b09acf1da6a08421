"""What people put around an attached network: wrappers, tracers, exporters, savers, transforms; and what it says of itself."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.nn.utils import prune

import popup
from popup import UsageError, attach, densities, extract, merge, scores, summary
from popup.search.methods import METHODS, Method
from popup.search.network import search_of, unwrapped
from popup.search.tables import text_table

FIRST = r"attached, and .*popup\.merge\(net\) first"


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


def attached():
    return attach(plain(), er_p=0.5, k=0.5).eval()


def inputs():
    return torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


TRACED = {"torch.jit.trace": lambda net: torch.jit.trace(net, inputs()),
          "torch.export": lambda net: torch.export.export(net, (inputs(),), strict=False),
          "torch.fx": lambda net: torch.fx.symbolic_trace(net),
          "torch.jit.script": lambda net: torch.jit.script(net),
          "torch.onnx.export": lambda net: torch.onnx.export(net, (inputs(),), io.BytesIO(), dynamo=False)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*legacy TorchScript:UserWarning")
@pytest.mark.parametrize("how", TRACED)
def test_what_records_a_pass_is_told_to_merge_first(how):
    if how == "torch.onnx.export":
        pytest.importorskip("onnx", reason="onnx is not installed")
    net = attached()
    with pytest.raises(UsageError, match=FIRST) as error:
        TRACED[how](net)
    assert how in str(error.value) and "\n" not in str(error.value)
    if how != "torch.onnx.export":
        with pytest.raises(UsageError, match=r"^0\.weight is attached, and .*merge\(net\) first") as error:
            TRACED[how](net[0])
        assert how in str(error.value)
    TRACED[how](merge(net))
    assert torch.equal(net(inputs()), merge(net)(inputs()))


@pytest.mark.filterwarnings("ignore")
def test_the_exporter_to_onnx_says_the_remedy_among_its_own_words():
    """It catches what a pass raises, and tells it in a message of its own."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    with pytest.raises(Exception, match=FIRST) as error:
        torch.onnx.export(attached(), (inputs(),), io.BytesIO(), dynamo=True)
    assert isinstance(error.value, UsageError) or isinstance(error.value.__cause__, UsageError)


def test_fvcore_traces_and_is_told():
    fvcore = pytest.importorskip("fvcore.nn", reason="fvcore is not installed")
    with pytest.raises(UsageError, match=FIRST):
        fvcore.FlopCountAnalysis(attached(), inputs()).total()


def test_transforms_of_torch_func_are_told_why_not():
    net = attached()
    named = dict(net.named_parameters())
    for transform in (lambda: torch.vmap(net)(inputs()), lambda: torch.vmap(net[0])(inputs()), lambda: torch.func.grad(
            lambda named: torch.func.functional_call(net, named, (inputs(),)).sum())(named)):
        with pytest.raises(UsageError, match=r"a transform of torch\.func .* straight through"):
            transform()
    assert net(inputs()).shape == (3, 4)


REBUILT = {"prune": lambda net: prune.l1_unstructured(net[0], "weight", 0.5),
           "prune, a share of all": lambda net: prune.global_unstructured(
               [(net[0], "weight"), (net[2], "weight")], prune.L1Unstructured, amount=0.5),
           "prune, rows": lambda net: prune.ln_structured(net[0], "weight", 0.5, n=2, dim=0),
           "quantization": lambda net: quantization.quantize_dynamic(net, {nn.Linear}),
           "quantization, to observe": lambda net: quantization.prepare(with_settings(net))}


def with_settings(net):
    net.qconfig = quantization.default_qconfig
    return net


@pytest.mark.filterwarnings("ignore:.*quantiz", "ignore:.*observer")
@pytest.mark.parametrize("how", REBUILT)
def test_what_rebuilds_modules_is_told_to_merge_first(how):
    net, before = attached(), {name: tensor.clone() for name, tensor in attached().state_dict().items()}
    with pytest.raises(UsageError, match=r"^0\.weight is attached, .*popup\.merge\(net\) first") as error:
        REBUILT[how](net)
    assert how.partition(",")[0] in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())
    for other in (merge(net), popup.detach(net)):
        REBUILT[how](other)


@pytest.mark.filterwarnings("ignore:.*quantiz", "ignore:.*observer")
def test_what_quantisation_leaves_alone_is_not_refused():
    net = attached()
    quantization.quantize_dynamic(net, {nn.LSTM}, inplace=True)
    net[0].extra, net[0].gain_orig = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    assert torch.equal(net(inputs()), attached()(inputs())) and net[0].extra.shape == (2,)


class Saving(nn.Sequential):
    """A network that saves itself, as transformers' do."""

    def save_pretrained(self, directory):
        return directory


def test_a_network_that_saves_itself_does_so_before_and_after_a_search_alone():
    net = attach(Saving(nn.Linear(4, 4)), er_p=0.5)
    with pytest.raises(UsageError, match=r"extract\(net\)\.save_pretrained.*merge\(net\)\.save_pretrained.*state_dict.*callback"):
        net.save_pretrained("a")
    assert merge(net).save_pretrained("b") == "b" and popup.detach(net).save_pretrained("c") == "c"


# --- wrappers

@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {"AveragedModel": torch.optim.swa_utils.AveragedModel, "compiled": lambda net: torch.compile(net, backend="eager"),
            "compiled average": lambda net: torch.compile(torch.optim.swa_utils.AveragedModel(net), backend="eager"),
            "DistributedDataParallel": nn.parallel.DistributedDataParallel}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_functions_take_what_wraps_an_attached_network(group, wrapper):
    net = attached()
    wrapped = WRAPPERS[wrapper](net)
    inner = unwrapped(wrapped)
    assert [score.shape for score in scores(wrapped)] == [score.shape for score in scores(net)]
    assert densities(wrapped) == densities(net) and repr(summary(wrapped)) == repr(summary(net))
    popup.advance(wrapped, 0.5)
    assert search_of(wrapped).progress == 0.5 and popup.penalty(wrapped) == 0
    assert extract(wrapped).layers[0].spec.name == "0.weight" and type(merge(wrapped)) is nn.Sequential
    assert torch.equal(extract(wrapped).apply(plain())(inputs()), net(inputs()))
    with pytest.raises(UsageError, match="attached already"):
        attach(wrapped, er_p=0.5)
    assert popup.detach(wrapped) is inner


def test_a_wrapper_of_what_is_not_attached_says_so():
    with pytest.raises(UsageError, match="AveragedModel is not attached"):
        scores(torch.optim.swa_utils.AveragedModel(plain()))


SHARDS = pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 shards no network on the CPU")


@SHARDS
def test_first_scores_are_ordered_before_a_network_is_sharded(group):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    net = attach(plain(), er_p=0.5, search=popup.SearchSettings(first_scores="gradient"))
    batches = [(inputs(), torch.arange(len(inputs())) % 2)]
    with pytest.raises(UsageError, match=r"call popup\.order_scores before it"):
        popup.order_scores(fsdp.fully_shard(copy.deepcopy(net), mesh=mesh), batches)
    popup.order_scores(net, batches)
    fsdp.fully_shard(net.train(), mesh=mesh)(inputs()).square().sum().backward()
    assert all(bool(score.grad.isfinite().all()) for score in scores(net))


@SHARDS
def test_a_whole_network_may_be_sharded_and_what_is_in_parts_is_refused_by_name(group):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    net = fsdp.fully_shard(attached().train(), mesh=mesh)
    optimiser = torch.optim.SGD(scores(net), lr=0.5)
    net(inputs()).square().sum().backward()
    optimiser.step()
    with pytest.raises(UsageError, match=r"^0\.weight has its scores sharded .*unshard"):
        extract(net)
    net.unshard()
    ticket = extract(net)
    assert torch.equal(ticket.apply(plain()).eval()(inputs()), net.eval()(inputs()))
    with pytest.raises(UsageError, match=r"^0\.weight is sharded already .* attach the network first"):
        attach(fsdp.fully_shard(plain(), mesh=mesh), er_p=0.5)
    parts = attached()
    fsdp.fully_shard(parts[0], mesh=mesh), fsdp.fully_shard(parts, mesh=mesh)
    with pytest.raises(UsageError, match=r"^0\.weight has its scores sharded .*none of its parts"):
        parts.train()(inputs())


@SHARDS
@pytest.mark.parametrize("strict", [True, False])
def test_a_state_of_a_sharded_network_is_for_sharded_ones_and_none_is_half_loaded(group, strict):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    from torch.distributed.checkpoint import state_dict as checkpoint

    mesh, full = torch.distributed.init_device_mesh("cpu", (1,)), checkpoint.StateDictOptions(full_state_dict=True)
    net, whole = fsdp.fully_shard(with_norm(), mesh=mesh), with_norm()
    for one in (net, whole):
        one(inputs()).square().sum().backward()
        torch.optim.SGD(scores(one), lr=0.5).step()
        popup.advance(one, 0.5)
    again = fsdp.fully_shard(with_norm(), mesh=mesh)
    again.load_state_dict(net.state_dict(), strict=strict)
    assert search_of(again).steps == 1
    cases = [(with_norm(), net, r"a part of the scores of 0\.weight .*get_model_state_dict\(net, options=.*full_state_dict=True"),
             (fsdp.fully_shard(with_norm(), mesh=mesh), whole, r"all scores of 0\.weight.*by set_model_state_dict\(net, state")]
    for other, saved, words in cases:
        with pytest.raises(UsageError, match=words) as error:
            other.load_state_dict(saved.state_dict(), strict=strict)
        assert "\n" not in str(error.value)
        assert search_of(other).steps == 0 and not other[1].running_mean.any()
    gathered, sharded = with_norm(), fsdp.fully_shard(with_norm(), mesh=mesh)
    gathered.load_state_dict(checkpoint.get_model_state_dict(net, options=full))
    checkpoint.set_model_state_dict(sharded, whole.state_dict(), options=full)
    net.unshard(), sharded.unshard(), again.unshard()
    for one, other in ((net, gathered), (whole, sharded), (net, again)):
        assert all(map(torch.equal, scores(one), scores(other))) and search_of(other).progress == 0.5
        assert torch.equal(one[1].running_mean, other[1].running_mean)


def with_norm():
    torch.manual_seed(0)
    return attach(nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)), er_p=0.5, k=0.5).train()


@SHARDS
@pytest.mark.parametrize("method", METHODS)
def test_each_method_works_where_the_network_is_sharded_or_is_refused_by_name(group, method):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    net, own = (attach(plain(), er_p=0.5, k=0.5, method=method).train() for _ in range(2))
    fsdp.fully_shard(net, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
    if type(search_of(own).method).after_step is not Method.after_step:
        with pytest.raises(UsageError, match=rf"^method {method} looks at whole scores after each step.*DistributedDataParallel"):
            scores(net)
        with pytest.raises(UsageError, match=rf"^method {method} looks at whole scores"):
            net(inputs())
        return
    for one in (net, own):
        torch.manual_seed(0)
        optimiser = torch.optim.SGD(scores(one), lr=0.5)
        for step in range(3):
            optimiser.zero_grad()
            (one(inputs()).square().sum() + popup.penalty(one)).backward()
            optimiser.step()
            popup.advance(one, (step + 1) / 3)
    net.unshard()
    for first, second in zip(extract(net).layers, extract(own).layers, strict=True):
        assert (first.codes == second.codes).all()


def test_what_wraps_a_network_is_not_attached(group):
    for wrap in (*WRAPPERS.values(), nn.DataParallel):
        with pytest.raises(UsageError, match=r"wraps a network.*attach the network itself, then wrap it"):
            attach(wrap(plain()), er_p=0.5)


# --- what it says of itself

def test_the_summary_has_counts_shares_and_multiply_adds():
    net = attach(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Flatten(), nn.Linear(576, 5),
                               nn.BatchNorm1d(5)), er_p=0.5, k=0.5)
    before = copy.deepcopy(net.state_dict())
    found = summary(net, torch.randn(2, 3, 8, 8))
    assert [layer.dense_multiply_adds for layer in found.layers] == [2 * 216 * 36, 2 * 128 * 36, 2 * 2880]
    for layer, row in zip(found.layers, densities(net), strict=True):
        assert (layer.name, layer.entries, layer.edges, layer.kept) == (row.name, row.entries, row.edges, row.kept)
        assert layer.multiply_adds == round(layer.dense_multiply_adds * row.kept / row.entries)
        assert layer.share == row.entries / (216 + 128 + 2880)
    assert (found.weights, found.dense) == (3224, 0) and [layer.kind for layer in found.layers][1] == "ConvTranspose2d"
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items()) and net.training
    assert "ConvTranspose2d" in repr(found) and "multiply-adds" in found._repr_html_()
    assert all(layer.multiply_adds is None for layer in summary(net).layers)


def test_attention_is_counted_by_its_products():
    net = attach(nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), er_p=0.5)
    found = {layer.name: layer.dense_multiply_adds for layer in summary(net, torch.randn(2, 5, 8)).layers}
    assert found == {"0.self_attn.in_proj_weight": 2 * 5 * 192, "0.self_attn.out_proj.weight": 2 * 5 * 64,
                     "0.linear1.weight": 2 * 5 * 128, "0.linear2.weight": 2 * 5 * 128}


def test_what_stays_dense_is_counted():
    net = attach(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), er_p=0.5, skip="1")
    assert (summary(net).weights, summary(net).dense) == (96, 32)
    assert "32 of 96 weights (33.3%)" in repr(summary(net))
    assert "32 dense ones beside" in repr(extract(net)) and repr(extract(net)).startswith("Ticket(edge_popup, seed 0: ")


def test_representations_are_short_and_tables_in_notebooks():
    net = attach(nn.Sequential(*(nn.Linear(4, 4) for _ in range(100))), er_p=0.5)
    ticket = extract(net)
    assert len(repr(ticket)) < 120 and "<table>" in ticket._repr_html_() and len(ticket._repr_html_()) < 6000
    text = repr(densities(net))
    assert text.splitlines()[0].split() == ["layer", "entries", "p_l", "edges", "kept", "density"]
    assert "... 61 more" in text and text.splitlines()[-1].startswith("all") and len(text.splitlines()) == 43
    assert densities(net) == list(densities(net)) and "<td>99.weight</td>" in densities(net)._repr_html_()
    assert text_table(("a", "b"), [["x", "1"], ["yy", "22"]]).splitlines() == ["a    b", "------", "x    1", "yy  22"]
