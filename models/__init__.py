"""Plain networks that know nothing of masks.

MODELS maps a name to a builder: (image [channels, height, width], classes, widths) -> nn.Module. A new model is one
function and one line here.
"""

from models.conv import conv2, conv4, conv6, conv8, small_conv
from models.mlp import mlp
from models.resnet import resnet18

MODELS = {"mlp": mlp, "small_conv": small_conv, "conv2": conv2, "conv4": conv4, "conv6": conv6, "conv8": conv8,
          "resnet18": resnet18}
