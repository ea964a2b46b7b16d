// SPDX-License-Identifier: MIT
// What a driver's compiler says of a pipeline: registers, spills, occupancy. Needs no submit.
#ifndef KIM_PIPELINE_STATISTICS_H
#define KIM_PIPELINE_STATISTICS_H

#include "pipeline.h"

// The name of a pipeline: of its shader, and its constants.
void pipeline_name(const pipeline_key *key, char *out, size_t size);

typedef void (*pipeline_statistic_fn)(void *user, const char *name, double value);

// Makes the pipeline and calls `visit` for every figure the driver gives, by the driver's names;
// for none where the device was not created with statistics or the driver has none.
kim_err pipeline_statistics(kim_gpu *g, const pipeline_key *key, pipeline_statistic_fn visit,
                            void *user);

#endif
