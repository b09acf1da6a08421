"""Plain networks that know nothing of masks.

MODELS maps a name to a builder: (image [channels, height, width], classes, widths, width=factor) -> nn.Module. `widths`
are a network's own numbers of channels, `width` scales all of them (models/widths.py says how it rounds). A new model is
one function and one line here. A network of texts takes windows [tokens] of whole numbers in the place of images.
"""

from .conv import conv2, conv2_elu, conv4, conv4_elu, conv6, conv6_elu, conv8, conv8_elu, small_conv
from .gpt import gpt
from .imagenet import imagenet_resnet18, imagenet_resnet34, imagenet_resnet50, imagenet_resnet101, wide_resnet50
from .lenet import lenet5, lenet_300_100
from .mlp import mlp, mlp_constant
from .registry import Builder, Models
from .resnet import resnet18, resnet20, resnet20_elu, resnet32, resnet34, resnet44, resnet50, resnet56, resnet110
from .vgg import vgg11, vgg16, vgg19
from .vit import vit
from .wide import wide_resnet28

MODELS = Models({builder.__name__: builder for builder in (
    mlp, mlp_constant, lenet_300_100, lenet5, small_conv, conv2, conv4, conv6, conv8,
    conv2_elu, conv4_elu, conv6_elu, conv8_elu, resnet20_elu,
    resnet18, resnet34, resnet50, resnet20, resnet32, resnet44, resnet56, resnet110,
    vgg11, vgg16, vgg19, wide_resnet28, wide_resnet50,
    imagenet_resnet18, imagenet_resnet34, imagenet_resnet50, imagenet_resnet101, vit, gpt)})


def resolve(name: str) -> Builder:
    """The builder of a name: one of MODELS, `torchvision:NAME`, `timm:NAME`, `chain:WORDS`, or `my_package.my_module:build`.

    Raises KeyError for an unknown plain name, ValueError with one line for anything else that is not there.
    """
    return MODELS[name]
