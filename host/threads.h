// SPDX-License-Identifier: MIT
// Work shared among threads.
#ifndef KIM_THREADS_H
#define KIM_THREADS_H

#include "base.h"

#include <pthread.h>

#define MAX_THREADS 16

// Processors there are, at most MAX_THREADS.
uint32_t processor_count(void);

// Does pieces 0 .. count - 1, in this order but several at once, on up to `most` threads, the
// calling one among them. After a failure no further piece is begun, and its error is returned.
//
// piece: thread: below `most`; 0 is the calling one. Pieces of one thread never overlap
kim_err share_among_threads(uint32_t count, uint32_t most,
                            kim_err (*piece)(void *user, uint32_t index, uint32_t thread),
                            void *user);

// Work on a thread of its own. Zero-initialised: none.
typedef struct side_work {
    kim_err (*work)(void *user);
    void *user;
    kim_err err;
    char text[1024]; // of the error
    pthread_t thread;
    bool threaded; // false: it was done at once, no thread was to be had
} side_work;
void side_work_begin(side_work *s, kim_err (*work)(void *user), void *user);
kim_err side_work_end(side_work *s, kim_err err); // waits for it; returns err, or if 0 its error

#endif
