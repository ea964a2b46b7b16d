// SPDX-License-Identifier: MIT
// What a device reaches at best, measured: the dispatches that kim_gpu_measure_peaks times.
#ifndef KIM_PEAKS_H
#define KIM_PEAKS_H

#include "stream.h"

enum {
    PEAK_WORKGROUP = 128,
    PEAK_COPY_PIECE = PEAK_WORKGROUP * PEAK_COPY_LOADS * 16, // bytes of a workgroup
};

// bytes of to: a multiple of PEAK_COPY_PIECE, at most 65535 of it
kim_err peak_copy(stream *st, const span *to, const span *from);

// Whether this device and this build have the arithmetic of a peak.
bool peak_has(const kim_gpu *gpu, kim_peak peak);

// Arithmetic: see the shader of the peak, with a factor and a term of 1.
//
// sums: [lanes] f32, lanes a multiple of peak_workgroup, at most 65535 of it
kim_err peak_arithmetic(stream *st, kim_peak peak, const span *sums, uint32_t rounds);
uint32_t peak_workgroup(const kim_gpu *gpu, kim_peak peak);

// Operations of a lane in a round.
double peak_operations(const kim_gpu *gpu, kim_peak peak);

#endif
