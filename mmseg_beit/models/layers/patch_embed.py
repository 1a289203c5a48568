"""Image to patch tokens by a strided convolution (ViT, arXiv:2010.11929)."""

from collections.abc import Callable

from torch import Tensor, nn

from ...errors import InputError
from .position import Grid
from .tracing import is_exporting


class PatchEmbed(nn.Module):
    """Splits images into patches and projects each to a token.

    Args:
        patch_size: Side of a square patch, in pixels.
        in_channels: Image channels.
        embed_dims: Width D of a token.
        norm_layer: Makes a normalisation of the given width for the tokens; ``None`` for none.
    """

    def __init__(
        self, patch_size: int, in_channels: int, embed_dims: int, norm_layer: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)
        self.norm = norm_layer(embed_dims) if norm_layer is not None else None

    def check_input_shape(self, height: int, width: int) -> None:
        """Says what to pad to where a side is no multiple of the patch size.

        Raises:
            InputError: A side is not a positive multiple of the patch size.
        """
        p = self.patch_size
        if height % p or width % p or not height or not width:
            padded = tuple(max(-(-side // p), 1) * p for side in (height, width))
            raise InputError(
                f'an input of {height}x{width} pixels is not a multiple of the patch size {p}: '
                f'pad it to {padded[0]}x{padded[1]} (the EncoderDecoder of mmseg_beit does so by itself)'
            )

    def forward(self, img: Tensor) -> tuple[Tensor, Grid]:
        """Float images (B, C, H, W) to tokens (B, h w, D), row by row, and the grid (h, w).

        Raises:
            InputError: A side is not a multiple of the patch size.
        """
        if not is_exporting():  # Whoever traces with open sizes vouches for them.
            self.check_input_shape(*img.shape[2:])
        x = self.projection(img)
        grid = (x.shape[2], x.shape[3])
        tokens = x.flatten(2).transpose(1, 2)
        return (tokens if self.norm is None else self.norm(tokens)), grid
