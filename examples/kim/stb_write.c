// SPDX-License-Identifier: MIT
// stb_image_write, compiled here alone, to memory only.
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#include <stb/stb_image_write.h>
