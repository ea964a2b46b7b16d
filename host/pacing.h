// SPDX-License-Identifier: MIT
// How long commands take on a device, and how much of them goes into one submit.
//
// A command is a number of units, any run of which can be submitted alone. Commands of one kind are
// expected to take a time in proportion to their work. What a kind takes is learnt from submits;
// before, and while it is seen to take more and more at once, little of it is submitted at once.
#ifndef KIM_PACING_H
#define KIM_PACING_H

#include "base.h"

#define SUBMIT_NS 50e6 // of device time, at most where it can be cut

typedef struct pacing pacing;

typedef struct paced_command {
    uint32_t kind;       // of pacing_kind
    double work;         // any measure of its duration
    uint64_t units, row; // where it is cut, it is at multiples of `row` if possible
} paced_command;

kim_err pacing_create(pacing **out);
void pacing_destroy(pacing **p);

// The number of a kind; `key` names it.
kim_err pacing_kind(pacing *p, uint64_t key, uint32_t *kind);

// Whether commands of this kind have been measured.
bool pacing_knows(const pacing *p, uint32_t kind);

// What a command is expected to take, in ns.
double pacing_expected(const pacing *p, const paced_command *c);

// A submit is made up: how many of the `left` last units of a command go into it. 0: none, it is
// full; of an empty submit at least one.
void pacing_begin(pacing *p);
uint64_t pacing_fit(pacing *p, const paced_command *c, uint64_t left);

// Learning: after pacing_begin, what was in the submit, and then how long it took. What was learnt
// of any number of submits takes effect together.
void pacing_add(pacing *p, const paced_command *c, uint64_t units);
void pacing_took(pacing *p, double ns);
void pacing_learn(pacing *p);

#endif
