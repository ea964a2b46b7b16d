// SPDX-License-Identifier: MIT
// Work shared among threads.
#include "threads.h"

#include "error.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#ifndef _WIN32
#    include <unistd.h>
#endif

uint32_t processor_count(void)
{
#ifdef _WIN32
    const char *n = getenv("NUMBER_OF_PROCESSORS");
    const long count = n ? atol(n) : 1;
#else
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
#endif
    return count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : (uint32_t)count;
}

typedef struct shared_work {
    uint32_t count;
    kim_err (*piece)(void *user, uint32_t index, uint32_t thread);
    void *user;
    atomic_uint next;
    _Atomic kim_err err;
    char text[1024]; // of the first error: its thread ends before the caller can ask
    atomic_flag text_taken;
} shared_work;

typedef struct worker {
    shared_work *work;
    uint32_t thread;
    pthread_t handle;
} worker;

static void *run(void *argument)
{
    const worker *w = argument;
    shared_work *work = w->work;
    for (uint32_t i; !work->err && (i = work->next++) < work->count;) {
        const kim_err err = work->piece(work->user, i, w->thread);
        if (err && !atomic_flag_test_and_set(&work->text_taken)) {
            snprintf(work->text, sizeof work->text, "%s", kim_error_text());
            work->err = err;
        }
    }
    return NULL;
}

kim_err share_among_threads(uint32_t count, uint32_t most,
                            kim_err (*piece)(void *user, uint32_t index, uint32_t thread),
                            void *user)
{
    shared_work work = {
        .count = count, .piece = piece, .user = user, .text_taken = ATOMIC_FLAG_INIT
    };
    worker workers[MAX_THREADS];
    uint32_t n = 1;
    for (; n < most && n < count && n < MAX_THREADS; n++) {
        workers[n] = (worker){ .work = &work, .thread = n };
        if (pthread_create(&workers[n].handle, NULL, run, &workers[n]))
            break; // fewer do as well
    }
    run(&(worker){ .work = &work });
    while (n > 1)
        pthread_join(workers[--n].handle, NULL);
    return work.err ? kim_fail(work.err, "%s", work.text) : KIM_OK;
}

static void *run_side_work(void *argument)
{
    side_work *s = argument;
    s->err = s->work(s->user);
    if (s->err)
        snprintf(s->text, sizeof s->text, "%s", kim_error_text());
    return NULL;
}

void side_work_begin(side_work *s, kim_err (*work)(void *user), void *user)
{
    *s = (side_work){ .work = work, .user = user };
    s->threaded = !pthread_create(&s->thread, NULL, run_side_work, s);
    if (!s->threaded)
        run_side_work(s);
}

kim_err side_work_end(side_work *s, kim_err err)
{
    if (s->threaded)
        pthread_join(s->thread, NULL);
    s->threaded = false;
    return err || !s->err ? err : kim_fail(s->err, "%s", s->text);
}
