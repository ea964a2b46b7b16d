// SPDX-License-Identifier: MIT
// Devices: list them, choose one, open it. Part of the public API; engine/kimberlite.h includes it.
#ifndef KIMBERLITE_DEVICES_H
#define KIMBERLITE_DEVICES_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kim_gpu kim_gpu;

typedef enum kim_device_type {
    KIM_DEVICE_OTHER = 0,
    KIM_DEVICE_INTEGRATED,
    KIM_DEVICE_DISCRETE,
    KIM_DEVICE_VIRTUAL,
    KIM_DEVICE_CPU,
} kim_device_type;

// How shaders reach memory; see shaders/memory.glsl.
typedef enum kim_memory_mode {
    KIM_MEMORY_AUTO = 0, // chosen for the device
    KIM_MEMORY_ADDRESS,  // buffer device addresses
    KIM_MEMORY_TABLE,    // one table of descriptors
} kim_memory_mode;

// A matrix of `rows` x `depth` times one of `depth` x `columns`; all 0 where there is none.
typedef struct kim_matrix_shape {
    uint32_t rows, columns, depth;
} kim_matrix_shape;

typedef struct kim_device_info {
    uint32_t index; // place in the driver's list; what `device = "0"` means
    char name[256];
    char driver[512]; // driver's name and version as it reports them
    char uuid[37];    // text form, lower case
    kim_device_type type;
    uint32_t vendor_id, device_id;
    uint32_t api_version;  // as VK_MAKE_API_VERSION
    uint64_t memory;       // bytes of its largest device-local heap
    uint64_t memory_free;  // bytes of it not in use, as the driver says; 0: it does not say
    uint64_t buffer_range; // bytes one buffer descriptor reaches
    uint32_t subgroup_size, subgroup_min, subgroup_max;
    bool subgroup_quads;    // of compute shaders: lanes may load for each other by fours
    uint32_t compute_units; // AMD's, or multiprocessors; 0: the driver does not say
    bool usable;            // has the baseline
    char problem[256];      // usable: ""; else one sentence: what it lacks
    bool chosen;            // the default choice
    char reason[320];       // why it is, or is not, the default choice
    // optional features, used where present
    bool buffer_device_address; // with 64-bit integers in shaders
    bool float16, int8, integer_dot_product;
    bool storage_8bit;       // 8-bit integers in storage buffers
    bool cooperative_matrix; // VK_KHR_cooperative_matrix
    // VK_NV_cooperative_matrix2 with reductions, conversions and operations on elements
    bool cooperative_matrix_nv;
    bool subgroup_size_control;
    bool host_memory_import; // VK_EXT_external_memory_host
    bool calibrated_timestamps;
    bool memory_budget;
    bool unified_memory; // device memory is mapped: no staging
    char pci[16];        // its place on the bus, "0000:03:00.0"; "": not known, or none
    // with cooperative_matrix: the largest that one subgroup multiplies
    kim_matrix_shape matrix_half; // fp16, into fp32
    kim_matrix_shape matrix_int8; // int8, into int32
} kim_device_info;

// Lists every Vulkan device of this machine, also those below the baseline.
//
// infos: [*count] filled in order of index; NULL only counts
// count: in: room in infos; out: how many there are
KIM_API kim_err kim_list_devices(kim_device_info *infos, uint32_t *count);

// What of the shaders this build lacks because of its GLSL compiler, in one line; "" when nothing.
KIM_API const char *kim_build_missing(void);

// What was tried to choose between ways to do the same, and what was chosen.
typedef struct kim_tuning_row {
    char choice[24];    // "memory", "many columns", "decode attention" and so on
    char candidate[24]; // "address", "half", "quads"
    double seconds;     // of some products of common shapes; not a number: it was struck off
    bool chosen;
    char problem[240]; // why it was struck off: what is wrong, and by how much; else ""
} kim_tuning_row;

#define KIM_TUNING_ROWS 24
typedef struct kim_tuning {
    uint32_t count; // 0: nothing was measured, and the defaults are taken
    kim_tuning_row rows[KIM_TUNING_ROWS];
} kim_tuning;

typedef enum kim_tuning_mode {
    KIM_TUNING_AUTO = 0, // as was measured before on this device with this driver; a GPU is
                         // measured on first use, which takes a second or two
    KIM_TUNING_OFF,      // the defaults
    KIM_TUNING_NOW,      // measures, and keeps it
} kim_tuning_mode;

typedef struct kim_gpu_params {
    const char *device;  // index, part of the name, or UUID; NULL: the best one
    uint64_t memory_cap; // bytes never to be crossed on the device; 0: no cap
    kim_memory_mode memory_mode;
    // where the pipeline cache is kept; NULL: the user's cache folder; "": nowhere
    const char *cache_dir;
    kim_tuning_mode tuning; // needs the cache folder, and memory for some products; a CPU driver,
                            // which compiles for seconds, and validation are for NOW only
    bool validation; // ask for the validation layers, synchronisation included; their messages
                     // come through log as errors and are counted
    // keep what the driver's compiler says of pipelines, where it does: registers and spills of
    // kernels.h; a driver may compile anew for it
    bool statistics;
    kim_log_fn log; // NULL: silent
    void *log_user;
} kim_gpu_params;

KIM_API kim_err kim_gpu_create(kim_gpu **out, const kim_gpu_params *params);
KIM_API void kim_gpu_destroy(kim_gpu **gpu);

// Valid as long as the gpu.
KIM_API const kim_device_info *kim_gpu_info(const kim_gpu *gpu);

// The one that was chosen, never KIM_MEMORY_AUTO.
KIM_API kim_memory_mode kim_gpu_memory_mode(const kim_gpu *gpu);

// What the choices of this device rest on.
KIM_API void kim_gpu_get_tuning(const kim_gpu *gpu, kim_tuning *out);

// The same of a device that is not open, as far as it is kept. cache_dir: as in kim_gpu_params
KIM_API void kim_device_get_tuning(const kim_device_info *info, const char *cache_dir,
                                   kim_tuning *out);

// Messages of the validation layers so far; 0 when they are off.
KIM_API uint32_t kim_gpu_validation_messages(const kim_gpu *gpu);

// Bytes allocated on the device now, and the most there have been.
KIM_API uint64_t kim_gpu_memory_used(const kim_gpu *gpu);
KIM_API uint64_t kim_gpu_memory_peak(const kim_gpu *gpu);

// What was done with the device since it was opened, by all threads.
typedef struct kim_gpu_stats {
    double wait_seconds;     // that the host waited for it
    double pipeline_seconds; // that making pipelines took
    uint32_t pipelines;      // made
} kim_gpu_stats;
KIM_API void kim_gpu_get_stats(const kim_gpu *gpu, kim_gpu_stats *out);

// What the device reaches at best, measured.
typedef enum kim_peak {
    KIM_PEAK_COPY, // bytes a second, read and written, of a copy by a shader that no cache holds
    // operations a second, in registers: a multiplication with an addition is two
    KIM_PEAK_FP32,
    KIM_PEAK_FP16,        // in lanes
    KIM_PEAK_INT8_DOT,    // dot products of four
    KIM_PEAK_HALF_MATRIX, // by the device's matrices, see kim_device_info.matrix_half
    KIM_PEAK_INT8_MATRIX,
    KIM_PEAK_COUNT,
} kim_peak;

// Measures them now, which takes a second or less on a GPU, and up to half a GiB of its memory, as
// much as there is. Nothing else should run on the device.
//
// peaks: [KIM_PEAK_COUNT]; 0: this device, or this build, has no such arithmetic
KIM_API kim_err kim_gpu_measure_peaks(kim_gpu *gpu, double *peaks);

#ifdef __cplusplus
}
#endif
#endif
