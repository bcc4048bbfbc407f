"""How FFmpeg scales frames and converts between RGB and YUV."""

from av.video.reformatter import Interpolation

# Between RGB and YUV: the library's default is quicker and costs 7 dB of luma.
CONVERSION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Of frames for the network, in training too: the library's default, bilinear, takes as long and costs 0.5 dB of luma.
SCALING = Interpolation.BICUBIC
