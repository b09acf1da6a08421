"""What --precision auto comes to, by the text of /proc/cpuinfo of each kind of processor."""

import pytest
import torch
from torch import nn

import popup
from models import MODELS
from popup.lab import precision
from popup.lab.precision import WORTH_IT, Precision, processor_is_fast

LIMIT, OLD_LIMIT = precision.LIMITS
OLDER = "fpu sse4_2 avx avx2 fma avx512f avx512dq avx512bw avx512vl avx512_vnni"
TILES = f"{OLDER} avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8"
ARM = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm"


def x86(vendor, flags):
    """Two processors, as Linux tells of them."""
    return "\n".join(f"processor\t: {number}\nvendor_id\t: {vendor}\ncpu family\t: 6\nmodel name\t: One (R) of {vendor}\n"
                     f"flags\t\t: {flags}\nvmx flags\t: vnmi\nbugs\t\t: spectre_v1\n" for number in range(2))


def arm(features):
    return "\n".join(f"processor\t: {number}\nBogoMIPS\t: 2100.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
                     for number in range(2))


INTEL, WITHOUT_TILES, AMD = (
    x86("GenuineIntel", TILES), x86("GenuineIntel", f"{OLDER} avx512_bf16"), x86("AuthenticAMD", f"{OLDER} avx512_bf16"))
KINDS = {
    "Intel with AMX": (INTEL, True),
    "Intel without AMX, or with it hidden by a hypervisor": (WITHOUT_TILES, False),
    "Intel with tiles of whole numbers only": (x86("GenuineIntel", f"{OLDER} avx512_bf16 amx_tile amx_int8"), False),
    "Intel before bf16": (x86("GenuineIntel", OLDER), False),
    "AMD with AVX512-BF16": (AMD, True),
    "AMD before it": (x86("AuthenticAMD", "fpu sse4_2 avx avx2 fma"), False),
    "AMD with bf16 hidden by a hypervisor": (x86("AuthenticAMD", OLDER), False),
    "a maker that is hidden": (x86("unknown", f"{OLDER} avx512_bf16"), False),
    "Arm with bf16 matrix instructions": (arm(f"{ARM} sve i8mm bf16 svebf16 svei8mm"), False),
    "Arm without": (arm(ARM), False),
    "a name that has a flag in it": (x86("amx_tile amx_bf16", OLDER), False),
    "nothing": ("", False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_taken_where_it_is_known_to_be_faster(kind):
    text, fast = KINDS[kind]
    assert processor_is_fast(text) is fast


@pytest.mark.parametrize(("limit", "tiles", "amd"), [
    ("AVX512_CORE_AMX", True, True), ("AVX512_CORE_AMX_FP16", True, True), ("ALL", True, True), ("DEFAULT", True, True),
    ("no such word", True, True), ("AVX512_CORE_FP16", False, True), ("AVX512_CORE_BF16", False, True),
    ("avx512_core_bf16", False, True), ("AVX512_CORE", False, False), ("AVX512_CORE_VNNI", False, False), ("AVX2", False, False)])
def test_what_onednn_is_told_to_leave_does_not_count(limit, tiles, amd):
    assert (processor_is_fast(INTEL, limit), processor_is_fast(AMD, limit)) == (tiles, amd)
    assert not processor_is_fast(WITHOUT_TILES, limit)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes this a machine with that text in its /proc/cpuinfo, without limits."""
    def told(text):
        (tmp_path / "cpuinfo").write_bytes(text.encode())
        monkeypatch.setattr(precision, "CPUINFO", str(tmp_path / "cpuinfo"))

    for name in precision.LIMITS:
        monkeypatch.delenv(name, raising=False)
    return told


LARGE, SMALL = WORTH_IT // 100, 10


def taken(width, wanted="auto"):
    return Precision.of(nn.Linear(100, width), wanted).name


def test_auto_is_of_the_machine_and_of_large_networks_only(machine):
    machine(INTEL)
    assert (taken(LARGE), taken(SMALL)) == ("bf16", "fp32")
    machine(WITHOUT_TILES)
    assert (taken(LARGE), taken(LARGE, "bf16")) == ("fp32", "bf16")
    machine(AMD)
    assert (taken(LARGE), taken(LARGE, "fp32")) == ("bf16", "fp32")


@pytest.mark.parametrize(("model", "image", "large"), [
    ("resnet20", (3, 32, 32), True), ("lenet5", (1, 28, 28), True), ("small_conv", (1, 8, 8), True),
    ("lenet_300_100", (1, 28, 28), False), ("mlp", (1, 8, 8), False)])
def test_a_convolutions_weights_count_for_each_place_that_uses_them(model, image, large, machine):
    """ResNet-20 has 270,000 weights and 41 million multiply-adds: by weights alone its step took 2.4 times as long."""
    machine(INTEL)
    net = MODELS[model](image, 10)
    plain = Precision.of(net, "auto")
    assert (plain.bf16, plain.channels_last) == (large, large)
    popup.attach(net, er_p=0.5, k=0.5, seed=0)
    assert Precision.of(net, "auto") == plain and not Precision.of(net, "fp32").bf16


def test_images_stay_contiguous_where_channels_last_was_seen_to_end_the_process(machine):
    machine(INTEL)
    usual, narrow = MODELS["resnet18"]((3, 32, 32), 10, width=1 / 4), MODELS["resnet18"]((3, 32, 32), 10, width=1 / 16)
    assert Precision.of(usual, "auto").channels_last and not Precision.of(narrow, "auto").channels_last
    popup.attach(narrow, er_p=0.5, k=0.5, seed=0)
    assert not Precision.of(narrow, "auto").channels_last and Precision.of(narrow, "auto").bf16


def test_one_convolution_does_not_make_a_small_network_of_linear_layers_large(machine):
    machine(INTEL)
    patches = nn.Sequential(nn.Conv2d(3, 64, 4, 4), nn.Flatten(2), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    assert Precision.of(patches, "auto").name == "fp32"
    depthwise = nn.Conv2d(512, 512, 3, groups=512)
    assert Precision.of(depthwise, "auto").name == "fp32" and Precision.of(nn.Conv2d(512, 512, 3), "auto").name == "bf16"


def test_images_of_one_channel_go_in_channels_last_too():
    """torch's `contiguous` leaves their strides, as either format has them so: then all that follows is in the other one."""
    last = Precision(torch.device("cpu"), bf16=False, channels_last=True)
    images = last.inputs(torch.rand(2, 1, 8, 8))
    assert images.stride() == (64, 1, 8, 1)
    assert nn.Conv2d(1, 4, 3)(images).is_contiguous(memory_format=torch.channels_last)


def test_on_a_gpu_calls_are_what_a_small_network_takes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    found = [Precision.of(MODELS[name]((3, 32, 32), 10), "auto", torch.device("cuda")) for name in ("resnet20", "conv4")]
    assert [(one.bf16, one.channels_last) for one in found] == [(False, False), (True, True)]


def test_either_name_of_the_limit_is_heard_and_the_newer_first(machine, monkeypatch):
    machine(INTEL)
    monkeypatch.setenv(OLD_LIMIT, "AVX512_CORE_BF16")
    assert taken(LARGE) == "fp32"
    monkeypatch.setenv(LIMIT, "AVX512_CORE_AMX")
    assert taken(LARGE) == "bf16"


def test_without_cpuinfo_auto_is_fp32(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "CPUINFO", str(tmp_path / "none"))
    assert taken(LARGE) == "fp32"


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_a_gpu_goes_by_its_capability(capability, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.fast_bf16(torch.device("cuda")) is (name == "bf16")
    assert not precision.fast_bf16(torch.device("mps"))
