"""The networks: SDXL's topology, small."""
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

WIDTHS, POOLED, TIME_IDS = (32, 28), 64, 16
CHANNELS = (32, 64, 96)
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0)
SIGNAL, NOISE = ALPHAS.sqrt().float(), (1 - ALPHAS).sqrt().float()
SIGMAS = NOISE / SIGNAL


def text_encoders(rows, start):
    text = dict(
        vocab_size=rows, intermediate_size=128, num_hidden_layers=4, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=start, eos_token_id=2, pad_token_id=1,
    )
    first, second = WIDTHS
    return (
        CLIPTextModel(CLIPTextConfig(hidden_size=first, hidden_act="quick_gelu", projection_dim=first, **text)),
        CLIPTextModelWithProjection(CLIPTextConfig(hidden_size=second, hidden_act="gelu", projection_dim=POOLED, **text)),
    )


class Texts(nn.Module):
    """Both text encoders, as SDXL reads them: the last layer but one of each, and the second one's pooled output."""

    def __init__(self, rows, start):
        super().__init__()
        self.first, self.second = text_encoders(rows, start)

    def forward(self, first, second):
        a = self.first(first, output_hidden_states=True)
        b = self.second(second, output_hidden_states=True)
        return torch.cat([a.hidden_states[-2], b.hidden_states[-2]], -1), b.text_embeds


def unet():
    return UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, flip_sin_to_cos=True, freq_shift=0,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=CHANNELS, layers_per_block=1, norm_num_groups=4, cross_attention_dim=sum(WIDTHS),
        transformer_layers_per_block=[1, 1, 1], attention_head_dim=[channels // 16 for channels in CHANNELS],
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=TIME_IDS,
        projection_class_embeddings_input_dim=POOLED + 6 * TIME_IDS,
    )


def autoencoder():
    return AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(16, 16, 32, 64), layers_per_block=1,
        latent_channels=4, norm_num_groups=2, sample_size=256, scaling_factor=1.0, force_upcast=False,
    )


def latents_of(images):
    """The latents the autoencoder is held to: n x 3 x H x W from -1 to 1 gives n x 4 x H/8 x W/8, about unit variance.

    Three channels are the mean color of 8 x 8 pixels, the fourth how much they vary, which tells edges from mixtures.
    """
    mean = F.avg_pool2d(images, 8)
    spread = (F.avg_pool2d(images**2, 8) - mean**2).clamp(min=0).mean(1, keepdim=True).sqrt()
    return torch.cat([mean / 0.7, (spread - 0.1) / 0.15], 1)


def initialize(network):
    """Variance 1 / fan-in in convolutions, and branches that start small.

    PyTorch's default is three times less, and a net this narrow then stays at its mean color for minutes.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
                module.bias.zero_()
        for module in network.modules():
            if isinstance(module, ResnetBlock2D):
                module.conv2.weight.mul_(0.1)
            if isinstance(module, Attention):
                module.to_out[0].weight.mul_(0.1)
    return network
