// SPDX-License-Identifier: MIT
// The published GGUFs of Gemma 3 and their projectors, as they are on the hub.
#include "pull.h"

// Those that several rows share.
#define PROJECTOR_4B                                                                               \
    {                                                                                              \
        .path = "mmproj-model-f16.gguf", .save_as = "mmproj-gemma-3-4b-it-f16.gguf",               \
        .size = 851251104,                                                                         \
        .sha256 = "8c0fb064b019a6972856aaae2c7e4792858af3ca4561be2dbf649123ba6c40cb"               \
    }
#define PROJECTOR_12B                                                                              \
    {                                                                                              \
        .path = "mmproj-model-f16.gguf", .save_as = "mmproj-gemma-3-12b-it-f16.gguf",              \
        .size = 854200224,                                                                         \
        .sha256 = "30c02d056410848227001830866e0a269fcc28aaf8ca971bded494003de9f5a5"               \
    }
#define PROJECTOR_27B                                                                              \
    {                                                                                              \
        .path = "mmproj-model-f16.gguf", .save_as = "mmproj-gemma-3-27b-it-f16.gguf",              \
        .size = 857739168,                                                                         \
        .sha256 = "54cb61c842fe49ac3c89bc1a614a2778163eb49f3dec2b90ff688b4c0392cb48"               \
    }

// Lengths and checksums are given where two sources or a published download with its own check
// agree; the rest is taken from the hub's headers when it is fetched.
const pull_model pull_models[] = {
    {
        .name = "270m-q8_0", // pre-trained
        .repository = "ggml-org/gemma-3-270m-GGUF",
        .text = { .path = "gemma-3-270m-Q8_0.gguf" },
    },
    {
        .name = "270m-it-qat-q4_0",
        .repository = "ggml-org/gemma-3-270m-it-qat-GGUF",
        .text = { .path = "gemma-3-270m-it-qat-Q4_0.gguf",
                  .size = 241410624,
                  .sha256 = "3626e245220ca4a1c5911eb4010b3ecb7bdbf5bc53c79403c21355354d1e2dc6" },
    },
    {
        .name = "270m-it-q4_k_m",
        .repository = "unsloth/gemma-3-270m-it-GGUF",
        .text = { .path = "gemma-3-270m-it-Q4_K_M.gguf" },
    },
    {
        .name = "270m-it-q8_0",
        .repository = "ggml-org/gemma-3-270m-it-GGUF",
        .revision = "e7647be17ae1108f2f605ed061ca0608b171afff",
        .text = { .path = "gemma-3-270m-it-Q8_0.gguf",
                  .size = 291545600,
                  .sha256 = "0ef57d2c838458a1952664260dcba38e5bdda37494f3af732f06e4add24068e3" },
    },
    {
        .name = "1b-it-qat-q4_0",
        .repository = "ggml-org/gemma-3-1b-it-qat-GGUF",
        .text = { .path = "gemma-3-1b-it-qat-Q4_0.gguf",
                  .size = 720425600,
                  .sha256 = "ef60e4e91a738c99ae9976b050657dfe68a4007a0ccca121b55ec0c413dccd58" },
    },
    {
        .name = "1b-it-q4_k_m",
        .repository = "ggml-org/gemma-3-1b-it-GGUF",
        .text = { .path = "gemma-3-1b-it-Q4_K_M.gguf",
                  .size = 806058240,
                  .sha256 = "8ccc5cd1f1b3602548715ae25a66ed73fd5dc68a210412eea643eb20eb75a135" },
    },
    {
        .name = "1b-it-q8_0",
        .repository = "ggml-org/gemma-3-1b-it-GGUF",
        .revision = "f9c28bcd85737ffc5aef028638d3341d49869c27",
        .text = { .path = "gemma-3-1b-it-Q8_0.gguf",
                  .size = 1069306368,
                  .sha256 = "b205840c5dcef55078e37d344677869a714ffd42a4ae448c48dcfb52e4bb10d5" },
    },
    {
        .name = "4b-it-qat-q4_0",
        .repository = "ggml-org/gemma-3-4b-it-qat-GGUF",
        .revision = "bbcac0d065076c47042838c0675c602411b0dd4c",
        .text = { .path = "gemma-3-4b-it-qat-Q4_0.gguf",
                  .size = 2526080992,
                  .sha256 = "ee91c3e7a4ab95d8c95672f9fcb58bf236b257e9f217966bcf53a5a6df4ab49a" },
        .projector = { .path = "mmproj-model-f16-4B.gguf",
                       .save_as = "mmproj-gemma-3-4b-it-qat-f16.gguf" },
    },
    {
        .name = "4b-it-q4_k_m",
        .repository = "ggml-org/gemma-3-4b-it-GGUF",
        .revision = "d0976223747697cb51e056d85c532013931fe52e",
        .text = { .path = "gemma-3-4b-it-Q4_K_M.gguf",
                  .size = 2489757856,
                  .sha256 = "882e8d2db44dc554fb0ea5077cb7e4bc49e7342a1f0da57901c0802ea21a0863" },
        .projector = PROJECTOR_4B,
    },
    {
        .name = "4b-it-q8_0",
        .repository = "ggml-org/gemma-3-4b-it-GGUF",
        .text = { .path = "gemma-3-4b-it-Q8_0.gguf", .size = 4130226336 },
        .projector = PROJECTOR_4B,
    },
    {
        .name = "12b-it-qat-q4_0",
        .repository = "ggml-org/gemma-3-12b-it-qat-GGUF",
        .text = { .path = "gemma-3-12b-it-qat-Q4_0.gguf",
                  .size = 7131017792,
                  .sha256 = "7fffee00e76e4b75dc6f9acca43b991d181f2b9483307564938fd4b391aad364" },
        .projector = { .path = "mmproj-model-f16-12B.gguf",
                       .save_as = "mmproj-gemma-3-12b-it-qat-f16.gguf",
                       .sha256 =
                           "9fad25814f4865abe00f675cf8f78f16572f1d79461272eede0345ebbdbc335c" },
    },
    {
        .name = "12b-it-q4_k_m",
        .repository = "ggml-org/gemma-3-12b-it-GGUF",
        .revision = "ec0cbabd8dbff316f659876a50202295c3c4a314",
        .text = { .path = "gemma-3-12b-it-Q4_K_M.gguf",
                  .size = 7300574976,
                  .sha256 = "7bb69bff3f48a7b642355d64a90e481182a7794707b3133890646b1efa778ff5" },
        .projector = PROJECTOR_12B,
    },
    {
        .name = "12b-it-q8_0",
        .repository = "ggml-org/gemma-3-12b-it-GGUF",
        .text = { .path = "gemma-3-12b-it-Q8_0.gguf" },
        .projector = PROJECTOR_12B,
    },
    {
        .name = "27b-it-qat-q4_0",
        .repository = "ggml-org/gemma-3-27b-it-qat-GGUF",
        .text = { .path = "gemma-3-27b-it-qat-Q4_0.gguf",
                  .size = 15908791488,
                  .sha256 = "548d816c3189dbcdaff663ea024fb67631e561945ffceb066093d3d522773010" },
        .projector = { .path = "mmproj-model-f16-27B.gguf",
                       .save_as = "mmproj-gemma-3-27b-it-qat-f16.gguf",
                       .sha256 =
                           "fad437b81b6f607d2c274abc77f5b641aa6d190ddafe698f9c417981d88536aa" },
    },
    {
        .name = "27b-it-q4_k_m",
        .repository = "ggml-org/gemma-3-27b-it-GGUF",
        .revision = "f94c25afed0072339c5fa3b705a7b4222afe5f62",
        .text = { .path = "gemma-3-27b-it-Q4_K_M.gguf",
                  .size = 16546404736,
                  .sha256 = "edc9aff4d811a285b9157618130b08688b0768d94ee5355b02dc0cb713012e15" },
        .projector = PROJECTOR_27B,
    },
    {
        .name = "27b-it-q8_0",
        .repository = "ggml-org/gemma-3-27b-it-GGUF",
        .text = { .path = "gemma-3-27b-it-Q8_0.gguf" },
        .projector = PROJECTOR_27B,
    },
    {
        .name = "google-1b-it-qat-q4_0",
        .repository = "google/gemma-3-1b-it-qat-q4_0-gguf",
        .revision = "d1be121d36172a4b0b964657e2ee859d61138593",
        .gated = true,
        .text = { .path = "gemma-3-1b-it-q4_0.gguf",
                  .size = 1003541152,
                  .sha256 = "95e5b8d891cd6a794f66c2a6fb59a41e9562b4660560b854274eceffb628b22a" },
    },
    {
        .name = "google-4b-it-qat-q4_0",
        .repository = "google/gemma-3-4b-it-qat-q4_0-gguf",
        .gated = true,
        .text = { .path = "gemma-3-4b-it-q4_0.gguf" },
        .projector = { .path = "mmproj-model-f16-4B.gguf" },
    },
    {
        .name = "google-12b-it-qat-q4_0",
        .repository = "google/gemma-3-12b-it-qat-q4_0-gguf",
        .gated = true,
        .text = { .path = "gemma-3-12b-it-q4_0.gguf" },
        .projector = { .path = "mmproj-model-f16-12B.gguf" },
    },
    {
        .name = "google-27b-it-qat-q4_0",
        .repository = "google/gemma-3-27b-it-qat-q4_0-gguf",
        .gated = true,
        .text = { .path = "gemma-3-27b-it-q4_0.gguf" },
        .projector = { .path = "mmproj-model-f16-27B.gguf" },
    },
};
const int n_pull_models = sizeof pull_models / sizeof *pull_models;
