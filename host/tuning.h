// SPDX-License-Identifier: MIT
// Choice by measurement: of ways to do the same, the one that is right and fastest on this device.
//
// Measured are the memory mode, the way of products of many columns (those that do not round
// activations to int8), their tiles, how lanes share products of few columns, whether what these
// and attention load is touched ahead, whether lanes load for each other in attention of one row,
// and how attention of many rows goes. Each candidate is first checked against plain C;
// one that is wrong is struck off. The results are kept in a text file beside the pipeline cache,
// for a device, driver and set of shaders, and for each memory mode that can be asked for.
#ifndef KIM_TUNING_H
#define KIM_TUNING_H

#include "gpu.h"

// kim_gpu_create: opens a device and makes its choices.
kim_err tuning_open(kim_gpu **out, const kim_gpu_params *params);

// Measures, and makes the choices of one device in its mode.
//
// only:    one choice by its name, such as "tile"; NULL: all of them
// seconds: set to the time of what was chosen, in all
kim_err tuning_measure(kim_gpu *g, const char *only, double *seconds);

#endif
