"""What no file of a ticket can hold is refused when a network is attached, not when the ticket of a long search is written."""

import copy

import pytest
import safetensors.torch
import torch
from torch import nn

import popup
from popup.source.copying import deep_copy

EYE = torch.eye(6)


class Held(nn.Module):
    """A network that holds a tensor beside its layers: as a parameter, a buffer, a buffer out of the state, or an attribute."""

    def __init__(self, tensor, where="buffer"):
        super().__init__()
        if where == "parameter":
            self.held = nn.Parameter(tensor, requires_grad=False)
        elif where == "attribute":
            self.held = tensor
        else:
            self.register_buffer("held", tensor, persistent=where == "buffer")
        self.into, self.out = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, inputs):
        return self.out(torch.relu(self.into(inputs)))


class Graph(Held):
    """Two graph convolutions, each unit with its neighbours by the adjacency matrix that is held."""

    def forward(self, inputs):
        return self.out(self.held @ torch.relu(self.into(self.held @ inputs)))


pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:Sparse BSR", "ignore:The PyTorch API of nested",
                                        "ignore:ComplexHalf")
REFUSED = {"coordinates": EYE.to_sparse, "rows": EYE.to_sparse_csr, "blocks": lambda: EYE.to_sparse_bsr((2, 2)),
           "oneDNN": EYE.to_mkldnn,
           "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
           "old nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
           "double complex": lambda: EYE.to(torch.complex128), "half complex": lambda: EYE.to(torch.complex32)}
STORED = {"complex": EYE.to(torch.complex64) * (1 + 2j), "conjugate": (EYE.to(torch.complex64) * (1 + 2j)).conj(),
          "negative": (EYE.to(torch.complex64) * (1 + 2j)).conj().imag, "e4m3": EYE.to(torch.float8_e4m3fn),
          "e5m2": EYE.to(torch.float8_e5m2), "bfloat16": EYE.bfloat16(), "bool": EYE.bool(), "uint16": EYE.to(torch.uint16),
          "double": EYE.double(), "empty": torch.empty(0, 3), "scalar": torch.tensor(3.0)}


@pytest.mark.parametrize("where", ["parameter", "buffer"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stored_is_refused_by_attach_and_fit_with_the_remedy(name, where):
    net = Held(REFUSED[name](), where)
    before = {key: value.clone() for key, value in net.state_dict().items() if key != "held"}
    examples = torch.rand(8, 5), torch.zeros(8, dtype=torch.int64)
    for begin in (lambda: popup.attach(net, er_p=0.5, k=0.5), lambda: popup.fit(net, examples, examples)):
        with pytest.raises(popup.UsageError, match=r"^held is .*cannot hold: give it as a dense tensor") as told:
            begin()
        assert ("persistent=False" in str(told.value)) == (where == "buffer") and "\n" not in str(told.value)
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())
    assert all(parameter.requires_grad for key, parameter in net.named_parameters() if key != "held")


def test_a_buffer_that_becomes_such_a_one_is_told_by_extract_and_can_be_mended():
    net = popup.attach(Held(EYE), er_p=0.5, k=0.5)
    net.held = EYE.to_sparse()
    with pytest.raises(popup.UsageError, match=r"^held is torch\.sparse_coo"):
        popup.extract(net)
    net.held = EYE
    assert popup.verify(popup.extract(net)).holds


@pytest.mark.parametrize("where", ["parameter", "buffer"])
@pytest.mark.parametrize("name", STORED)
def test_all_else_comes_back_as_it_was(name, where, tmp_path):
    if STORED[name].dtype not in safetensors.torch._SIZE:
        pytest.skip("this safetensors has no such type")
    net = popup.attach(Held(STORED[name], where), er_p=0.5, k=0.5, only=("into", "out"))
    popup.extract(net).save(tmp_path / "ticket.safetensors")
    empty = Held(torch.zeros_like(STORED[name]), where)
    popup.load(tmp_path / "ticket.safetensors").apply(empty)
    bits = [tensor.resolve_conj().resolve_neg().cpu().contiguous() for tensor in (empty.held.detach(), STORED[name])]
    assert bits[0].dtype is bits[1].dtype and bits[0].shape == bits[1].shape
    assert bytes(bits[0].flatten().view(torch.uint8).tolist()) == bytes(bits[1].flatten().view(torch.uint8).tolist())


@pytest.mark.parametrize("where", ["temporary", "attribute"])
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_a_graph_network_with_a_sparse_adjacency_matrix_is_searched_copied_and_rebuilt(layout, where, tmp_path):
    adjacency = (torch.rand(6, 6) < 0.4).float() + EYE
    net = popup.attach(Graph(getattr(adjacency, layout)(), where), er_p=0.5, k=0.5)
    dense = popup.attach(Graph(adjacency, where), er_p=0.5, k=0.5)
    inputs = torch.rand(6, 5)
    for one in (net, dense):
        one(inputs).square().sum().backward()
    for mine, theirs in zip(popup.scores(net), popup.scores(dense), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-5, atol=1e-7)
    plain = popup.merge(net)
    assert torch.equal(plain(inputs), net(inputs)) and plain.held is not net.held
    popup.extract(net).save(tmp_path / "ticket.safetensors")
    applied = popup.load(tmp_path / "ticket.safetensors").apply(Graph(net.held, where))
    assert torch.equal(applied(inputs), plain(inputs))


@pytest.mark.parametrize("name", ["rows", "blocks", "oneDNN", "old nested"])
@pytest.mark.parametrize("where", ["temporary", "attribute"])
def test_what_torch_makes_no_deep_copy_of_is_copied(name, where):
    net = Held(REFUSED[name](), where)
    with pytest.raises(NotImplementedError):
        copy.deepcopy(net)
    copied = deep_copy(net)
    assert copied.held is not net.held and copied.held.layout is net.held.layout
    parts = [held.unbind() if held.is_nested else [held.to_dense()] for held in (net.held, copied.held)]
    assert all(map(torch.equal, *parts))


def test_a_copy_of_a_sparse_one_has_memory_of_its_own():
    net = Graph(EYE.to_sparse_csr(), "attribute")
    with pytest.raises(NotImplementedError):
        copy.deepcopy(net)
    copied = deep_copy(net)
    copied.held.values().fill_(7)
    assert torch.equal(net.held.to_dense(), EYE) and torch.equal(copied.held.to_dense(), 7 * EYE)


@pytest.mark.parametrize("state", [{"seen": 1}, None, b"seen"])
def test_a_state_that_is_no_tensor_is_refused_before_a_search(state):
    class Kept(nn.Module):
        def get_extra_state(self):
            return state

        def set_extra_state(self, state):
            pass

        def forward(self, x):
            return x

    with pytest.raises(popup.UsageError, match=f"1._extra_state of .* is a {type(state).__name__}, which the file"):
        popup.attach(nn.Sequential(nn.Linear(4, 2), Kept()), er_p=0.5)
