// SPDX-License-Identifier: MIT
// Sessions with pictures: continued, cut, forked, saved and loaded; what does not fit together.
//
//   vision_session_test TESTS_FOLDER [MODEL] [--device D] [--mode address|table] [--validation]
//
// What a session comes to after any of these is what reading everything at once comes to.
#include "vision_support.h"

#include <math.h>
#include <unistd.h>

#define MOST_LOGITS 0.02 // other batches: other orders of the sums, and K and V rounded to fp16

typedef struct scene {
    small_vision v;
    kim_model *model;
    kim_image *images[2]; // different ones
    int32_t *ids;         // "... picture ... picture ..."
    uint32_t count;
    uint32_t first[2]; // of the soft tokens
    float *logits;     // [vocab] after all of it, read at once
} scene;

static kim_session *new_session(const scene *s, uint32_t batch)
{
    kim_session *session;
    CHECK_OK(kim_session_create(&session, s->model,
                                &(kim_session_params){ .context = 1024, .batch = batch }));
    return session;
}

static kim_prompt whole(const scene *s, const kim_image *const *images)
{
    return (kim_prompt){ .tokens = s->ids, .count = s->count, .images = images, .n_images = 2 };
}

static void scene_open(scene *s, kim_gpu *gpu, const char *folder)
{
    static const char text[] = "<start_of_image> and <start_of_image> there";
    small_vision_open(&s->v, folder, "border");
    CHECK_OK(kim_model_open(&s->model, gpu, s->v.text_path,
                            &(kim_model_params){ .mmproj = s->v.mmproj_path }));
    for (uint32_t i = 0; i < 2; i++) {
        uint8_t *pixels = vision_pixels(&s->v.pictures[i]);
        CHECK_OK(kim_image_from_pixels(&s->images[i], pixels, s->v.pictures[i].width,
                                       s->v.pictures[i].height, 3, 0));
        free(pixels);
    }
    CHECK_OK(kim_images_encode(s->model, s->images, 2, NULL, NULL));
    const kim_image *const images[2] = { s->images[0], s->images[1] };
    CHECK_OK(kim_prompt_tokens(s->model, &(kim_text){ text, sizeof text - 1, true, images, 2 },
                               &s->ids, &s->count));
    for (uint32_t i = 0, n = 0; i < s->count; i++)
        if (s->ids[i] == s->v.soft && s->ids[i - 1] != s->v.soft)
            s->first[n++] = i;
    kim_session *session = new_session(s, 512);
    const kim_prompt prompt = whole(s, images);
    CHECK_OK(kim_session_read(session, &prompt, NULL));
    s->logits = malloc(s->v.vocab * sizeof *s->logits);
    CHECK(s->logits, "out of memory");
    memcpy(s->logits, kim_session_logits(session), s->v.vocab * sizeof *s->logits);
    kim_session_destroy(&session);
}

static void scene_close(scene *s)
{
    for (uint32_t i = 0; i < 2; i++)
        kim_image_destroy(&s->images[i]);
    kim_free(s->ids);
    free(s->logits);
    kim_model_destroy(&s->model);
    small_vision_close(&s->v);
}

static double off(const scene *s, const kim_session *session)
{
    const float *logits = kim_session_logits(session);
    double worst = 0;
    CHECK(logits, "there are no logits");
    for (uint32_t i = 0; i < s->v.vocab; i++)
        if (!(fabs((double)logits[i] - (double)s->logits[i]) <= worst))
            worst = fabs((double)logits[i] - (double)s->logits[i]);
    return worst;
}

// ------------------------------------------------------------------------------------- going on

static void test_continue(const scene *s)
{
    const kim_image *const images[2] = { s->images[0], s->images[1] };
    const kim_image *const swapped[2] = { s->images[1], s->images[0] };
    const kim_image *const second[2] = { s->images[0], s->images[0] };
    kim_prompt prompt = whole(s, images);
    kim_session *session = new_session(s, 16);
    uint32_t reused;
    CHECK_OK(kim_session_continue(session, &prompt, &reused));
    CHECK(reused == 0, "%u tokens of an empty session were reused", reused);
    check_figure("  continued from nothing", off(s, session), MOST_LOGITS);
    CHECK_OK(kim_session_continue(session, &prompt, &reused));
    CHECK(reused == s->count - 1, "%u of %u tokens were reused", reused, s->count);
    check_figure("  the same once more", off(s, session), MOST_LOGITS);
    prompt.images = second;
    CHECK_OK(kim_session_continue(session, &prompt, &reused));
    CHECK(reused == s->first[1], "%u tokens were reused with another second picture, not %u",
          reused, s->first[1]);
    CHECK(off(s, session) > MOST_LOGITS, "another picture made no difference");
    prompt.images = swapped;
    CHECK_OK(kim_session_continue(session, &prompt, &reused));
    CHECK(reused == s->first[0], "%u tokens were reused with another first picture, not %u", reused,
          s->first[0]);
    prompt.images = images;
    CHECK_OK(kim_session_continue(session, &prompt, &reused));
    check_figure("  and back", off(s, session), MOST_LOGITS);
    kim_session_destroy(&session);
}

static void test_cut(const scene *s)
{
    const kim_image *const images[2] = { s->images[0], s->images[1] };
    const kim_prompt prompt = whole(s, images);
    kim_session *session = new_session(s, 16);
    CHECK_OK(kim_session_read(session, &prompt, NULL));
    CHECK_FAILS(kim_session_cut(session, s->first[1] + 1), KIM_ERR_ARGUMENT, "within a picture");
    CHECK(kim_session_position(session) == s->count, "a cut that failed cut");
    CHECK_OK(kim_session_cut(session, s->first[1]));
    kim_prompt rest = prompt;
    rest.tokens += s->first[1];
    rest.count -= s->first[1];
    rest.images++;
    rest.n_images--;
    CHECK_OK(kim_session_read(session, &rest, NULL));
    check_figure("  cut before a picture", off(s, session), MOST_LOGITS);
    // so far back that what is kept is read again, its picture too
    for (uint32_t i = 0; i < 200; i++)
        CHECK_OK(kim_session_append(session, s->ids, 1));
    CHECK_OK(kim_session_cut(session, s->count - 1));
    CHECK_OK(kim_session_append(session, &s->ids[s->count - 1], 1));
    check_figure("  cut far back", off(s, session), MOST_LOGITS);
    kim_session_destroy(&session);
}

// ------------------------------------------------------------------------------ copies and files

static void test_fork(const scene *s)
{
    const kim_image *const images[2] = { s->images[0], s->images[1] };
    kim_prompt prompt = whole(s, images);
    kim_session *session = new_session(s, 32), *fork;
    prompt.count--;
    CHECK_OK(kim_session_read(session, &prompt, NULL));
    CHECK_OK(kim_session_fork(&fork, session));
    kim_session_destroy(&session);
    prompt.count++;
    uint32_t reused;
    CHECK_OK(kim_session_continue(fork, &prompt, &reused));
    CHECK(reused == s->count - 1, "a fork knows %u of %u tokens", reused, s->count);
    check_figure("  forked", off(s, fork), MOST_LOGITS);
    kim_session_destroy(&fork);
}

static void test_file(const scene *s, kim_gpu *gpu)
{
    const kim_image *const images[2] = { s->images[0], s->images[1] };
    const kim_prompt prompt = whole(s, images);
    char path[] = "/tmp/kim-vision-session-XXXXXX";
    const int file = mkstemp(path);
    CHECK(file >= 0, "no file can be made in /tmp");
    close(file);
    kim_session *session = new_session(s, 512), *loaded = new_session(s, 20);
    CHECK_OK(kim_session_read(session, &prompt, NULL));
    CHECK_OK(kim_session_save(session, path));
    CHECK_OK(kim_session_load(loaded, path));
    check_figure("  loaded", off(s, loaded), 0);
    uint32_t reused;
    CHECK_OK(kim_session_continue(loaded, &prompt, &reused));
    CHECK(reused == s->count - 1, "%u of %u loaded tokens were reused", reused, s->count);
    check_figure("  loaded and continued", off(s, loaded), MOST_LOGITS);
    CHECK_OK(kim_session_cut(loaded, s->first[1])); // of the window before, nothing is in the file
    CHECK_OK(kim_session_continue(loaded, &prompt, &reused));
    check_figure("  loaded, cut and read again", off(s, loaded), MOST_LOGITS);
    kim_session_destroy(&session);
    kim_session_destroy(&loaded);

    kim_model *blind;
    CHECK_OK(kim_model_open(&blind, gpu, s->v.text_path, NULL));
    CHECK_OK(kim_session_create(&session, blind, NULL));
    CHECK(kim_session_load(session, path), "a model that cannot see took a session with pictures");
    kim_session_destroy(&session);
    kim_model_destroy(&blind);
    unlink(path);
}

// A prompt may end with a picture: its last soft tokens have logits too.
static void test_end(const scene *s)
{
    const kim_image *const images[2] = { s->images[0], s->images[1] };
    kim_prompt prompt = whole(s, images);
    kim_session *session = new_session(s, 512);
    uint32_t reused;
    CHECK_OK(kim_session_read(session, &prompt, NULL));
    prompt.count = s->first[1] + s->v.shape.tokens;
    CHECK_OK(kim_session_continue(session, &prompt, &reused));
    CHECK(reused == s->first[1], "%u tokens were reused, not %u", reused, s->first[1]);
    CHECK(kim_session_logits(session), "there are no logits after a picture");
    kim_session_destroy(&session);
}

// Saving a session that was cut far back reads what is left anew, and leaves nothing behind.
static void test_save_after_cut(const scene *s)
{
    const kim_image *const images[2] = { s->images[0], s->images[1] };
    const kim_prompt prompt = whole(s, images);
    const uint32_t n = s->first[0];
    const int32_t other[3] = { s->ids[0], s->ids[s->count - 1], s->ids[s->count - 2] };
    CHECK(n == 3, "the first picture begins at %u", n);
    kim_session *session = new_session(s, 64), *fresh = new_session(s, 64);
    CHECK_OK(kim_session_read(session, &prompt, NULL));
    for (uint32_t i = 0; i < 200; i++)
        CHECK_OK(kim_session_append(session, s->ids, 1));
    CHECK_OK(kim_session_cut(session, n));
    CHECK_OK(kim_session_save(session, "/tmp/kim-vision-session-cut"));
    unlink("/tmp/kim-vision-session-cut");
    CHECK_OK(kim_session_cut(session, 0));
    CHECK_OK(kim_session_append(session, other, n));
    CHECK_OK(kim_session_append(fresh, other, n));
    CHECK(
        !memcmp(kim_session_logits(session), kim_session_logits(fresh), s->v.vocab * sizeof(float)),
        "after a cut and a save other tokens come to other logits");
    kim_session_destroy(&session);
    kim_session_destroy(&fresh);
}

// --------------------------------------------------------------------------------------- errors

static void test_errors(const scene *s)
{
    const kim_image *const images[3] = { s->images[0], s->images[1], s->images[0] };
    kim_session *session = new_session(s, 16);
    kim_prompt prompt = whole(s, images);
    prompt.n_images = 1;
    CHECK_FAILS(kim_session_read(session, &prompt, NULL), KIM_ERR_ARGUMENT, "no picture is left");
    prompt.n_images = 3;
    CHECK_FAILS(kim_session_read(session, &prompt, NULL), KIM_ERR_ARGUMENT, "more of them");
    prompt.n_images = 0;
    CHECK_FAILS(kim_session_read(session, &prompt, NULL), KIM_ERR_ARGUMENT, "soft token");
    prompt = whole(s, images);
    prompt.count = s->first[1] + 3;
    CHECK_FAILS(kim_session_read(session, &prompt, NULL), KIM_ERR_ARGUMENT, "in a row");
    CHECK_FAILS(kim_session_append(session, &s->v.soft, 1), KIM_ERR_ARGUMENT, "soft token");
    uint8_t pixel[3] = { 0 };
    kim_image *raw;
    CHECK_OK(kim_image_from_pixels(&raw, pixel, 1, 1, 3, 0));
    const kim_image *const with_raw[2] = { s->images[0], raw };
    prompt = whole(s, with_raw);
    CHECK_FAILS(kim_session_read(session, &prompt, NULL), KIM_ERR_ARGUMENT, "was not encoded");
    kim_image_destroy(&raw);
    CHECK(kim_session_position(session) == 0, "%u tokens were read", kim_session_position(session));
    prompt = whole(s, images);
    CHECK_OK(kim_session_read(session, &prompt, NULL));
    check_figure("  after all these errors", off(s, session), MOST_LOGITS);
    kim_session_destroy(&session);
}

int main(int argc, char **argv)
{
    model_options o = { 0 };
    scene s = { 0 };
    model_options_read(&o, argc, argv);
    kim_gpu *gpu = model_gpu(&o);
    scene_open(&s, gpu, o.tests_folder);
    test_continue(&s);
    test_cut(&s);
    test_fork(&s);
    test_file(&s, gpu);
    test_end(&s);
    test_save_after_cut(&s);
    test_errors(&s);
    scene_close(&s);
    model_gpu_finish(&gpu);
    CHECK(!failed_figures(), "%u figures are worse than their limits", failed_figures());
    return 0;
}
