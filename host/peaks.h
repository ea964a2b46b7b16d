// SPDX-License-Identifier: MIT
// What a device reaches at best, measured: the two dispatches that kim_gpu_measure_peaks times.
#ifndef KIM_PEAKS_H
#define KIM_PEAKS_H

#include "stream.h"

enum {
    PEAK_WORKGROUP = 128,
    PEAK_COPY_PIECE = PEAK_WORKGROUP * PEAK_COPY_LOADS * 16, // bytes of a workgroup
};

// bytes of to: a multiple of PEAK_COPY_PIECE, at most 65535 of it
kim_err peak_copy(stream *st, const span *to, const span *from);

// sums: [lanes] f32, lanes a multiple of PEAK_WORKGROUP, at most 65535 of it; see peak_fp32.comp
// with a factor and a term of 1
kim_err peak_fp32(stream *st, const span *sums, uint32_t rounds);

#endif
