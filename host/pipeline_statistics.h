// SPDX-License-Identifier: MIT
// What a driver's compiler says of a pipeline: registers, spills, occupancy. Needs no submit.
#ifndef KIM_PIPELINE_STATISTICS_H
#define KIM_PIPELINE_STATISTICS_H

#include "pipeline.h"

// The name of a pipeline: of its shader, and its constants.
void pipeline_name(const pipeline_key *key, char *out, size_t size);

typedef void (*pipeline_statistic_fn)(void *user, const char *name, double value);

// Makes the pipeline and calls `visit` for every figure the driver gives, by the driver's names;
// for none where the device was not created with them or the driver has none.
kim_err pipeline_statistics(kim_gpu *g, const pipeline_key *key, pipeline_statistic_fn visit,
                            void *user);

// The figures that most drivers give, under one set of names; not a number: not given.
typedef enum pipeline_figure {
    PIPELINE_REGISTERS,
    PIPELINE_SCALAR_REGISTERS,
    PIPELINE_SPILLS, // summed over kinds
    PIPELINE_SHARED_BYTES,
    PIPELINE_OCCUPANCY,
    PIPELINE_INSTRUCTIONS,
    PIPELINE_THROUGHPUT,
    PIPELINE_FIGURES,
} pipeline_figure;

typedef struct pipeline_figures {
    double values[PIPELINE_FIGURES];
} pipeline_figures;

kim_err pipeline_get_figures(kim_gpu *g, const pipeline_key *key, pipeline_figures *out);

// Adds a figure by a driver's name for it: a pipeline_statistic_fn, whose user is the figures.
void pipeline_figures_add(void *figures, const char *name, double value);

#endif
