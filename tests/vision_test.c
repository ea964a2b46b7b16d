// SPDX-License-Identifier: MIT
// Conversations with pictures against the reference implementation, through the public API.
//
//   vision_test TESTS_FOLDER [MODEL] [--device D] [--mode address|table] [--validation] [--limit N]
//
// --limit: batch sizes tried for a model; 0: all; 1, for slow drivers: without the model of the
// published size, 896, whose pictures encoder_test has
#include "vision_support.h"

#include <math.h>

// K and V in fp16 make up most of it, as for text: see small_models_test.c. The smallest of the
// mistakes that make_small_vision.py tries (pictures read causally, soft tokens scaled or turned)
// makes 1 and 0.06.
#define MOST_LOGITS 0.1
#define MOST_DIVERGENCE 1e-4
#define MOST_SOFT 1e-3

typedef struct errors {
    double divergence, logits; // largest of a position
    double scores;             // log-probability of a prompt's token, largest
    uint32_t others;           // first tokens that are others
    uint32_t compared;
    bool scored;
} errors;

// ----------------------------------------------------------------------------------- pictures

static kim_image *make_image(const vision_picture *p)
{
    kim_image *image;
    uint8_t *pixels = vision_pixels(p);
    CHECK_OK(kim_image_from_pixels(&image, pixels, p->width, p->height, 3, 0));
    free(pixels);
    return image;
}

static void check_soft_tokens(const small_vision *v, const kim_image *image, uint32_t index)
{
    const vision_picture *p = &v->pictures[index];
    const uint64_t each = (uint64_t)v->shape.tokens * v->shape.text_hidden;
    kim_image_info info;
    kim_image_get_info(image, &info);
    CHECK(info.encoded && info.tiles == p->tiles && info.tile_tokens == v->shape.tokens &&
              info.tile_size == v->shape.image,
          "picture %u: %u tiles of %u pixels and %u tokens", index, info.tiles, info.tile_size,
          info.tile_tokens);
    double error = 0, norm = 0;
    for (uint32_t i = 0; i < p->values; i++) {
        const uint64_t at = (uint64_t)i * p->stride;
        const float *tile = kim_image_get_soft_tokens(image, (uint32_t)(at / each));
        CHECK(tile, "picture %u has no soft tokens", index);
        const double e = (double)tile[at % each] - (double)p->soft[i];
        error += e * e;
        norm += (double)p->soft[i] * (double)p->soft[i];
    }
    CHECK(sqrt(error / norm) <= MOST_SOFT, "picture %u: the soft tokens are off by %g", index,
          sqrt(error / norm));
}

static kim_image **make_images(const small_vision *v, kim_model *model)
{
    kim_image **images = calloc(v->n_pictures, sizeof(kim_image *));
    CHECK(images, "out of memory");
    for (uint32_t i = 0; i < v->n_pictures; i++) {
        images[i] = make_image(&v->pictures[i]);
        const kim_pan_and_scan crops = { .on = v->pictures[i].pan_and_scan };
        CHECK_OK(kim_image_prepare(images[i], model, &crops));
    }
    CHECK_OK(kim_images_encode(model, images, v->n_pictures, NULL, NULL));
    for (uint32_t i = 0; i < v->n_pictures; i++)
        check_soft_tokens(v, images[i], i);
    return images;
}

// ------------------------------------------------------------------------------ conversations

// A conversation with its pictures and the ids that the library gives it.
typedef struct prepared {
    const vision_conversation *c;
    const kim_image **images;
    kim_prompt prompt;
    int32_t *ids;
} prepared;

static prepared prepare(const kim_model *model, kim_image *const *images,
                        const vision_conversation *c)
{
    prepared p = { .c = c, .images = calloc(c->pictures, sizeof(kim_image *)) };
    uint32_t count;
    CHECK(p.images, "out of memory");
    for (uint32_t i = 0; i < c->pictures; i++)
        p.images[i] = images[c->picture[i]];
    CHECK_OK(kim_prompt_tokens(model,
                               &(kim_text){ .text = c->text,
                                            .length = strlen(c->text),
                                            .special = true,
                                            .images = p.images,
                                            .n_images = c->pictures },
                               &p.ids, &count));
    for (uint32_t i = 0; i < count && i < c->count; i++)
        CHECK(p.ids[i] == c->ids[i], "%s: token %u is %d, not %d", c->name, i, (int)p.ids[i],
              (int)c->ids[i]);
    CHECK(count == c->count, "%s: %u tokens, not %u", c->name, count, c->count);
    p.prompt = (kim_prompt){
        .tokens = p.ids, .count = count, .images = p.images, .n_images = c->pictures
    };
    return p;
}

static void finish(prepared *p)
{
    kim_free(p->ids);
    free(p->images);
}

static double worse(double a, double b)
{
    return b <= a ? a : b; // fmax would pass over what is not a number
}

// The logits before token `step` of the continuation.
static void compare_logits(const small_vision *v, const vision_conversation *c,
                           const kim_session *session, uint32_t step, errors *e)
{
    const float *got = kim_session_logits(session), *want = c->logits + (uint64_t)step * v->vocab;
    CHECK(got, "%s: there are no logits", c->name);
    const double got_sum = log_sum(got, v->vocab), want_sum = log_sum(want, v->vocab);
    double divergence = 0;
    for (uint32_t i = 0; i < v->vocab; i++) {
        const double p = (double)want[i] - want_sum, q = (double)got[i] - got_sum;
        divergence += exp(p) * (p - q);
        e->logits = worse(e->logits, fabs(p - q));
    }
    e->divergence = worse(e->divergence, divergence);
    // a soft token that is in the vocabulary may well have the highest: it is never drawn
    const uint32_t end = (uint32_t)v->soft < v->vocab ? (uint32_t)v->soft : v->vocab;
    e->others += highest(got, end) != c->following[step];
    e->compared++;
}

static void follow(const small_vision *v, const vision_conversation *c, kim_session *session,
                   errors *e)
{
    for (uint32_t step = 0; step < c->next; step++) {
        compare_logits(v, c, session, step, e);
        CHECK_OK(kim_session_append(session, &c->following[step], 1));
    }
}

// All of the prompt in one call, with scores.
static void run_scored(const small_vision *v, const prepared *p, kim_session *session, errors *e)
{
    const vision_conversation *c = p->c;
    kim_score *scores = malloc(c->count * sizeof *scores);
    CHECK(scores, "out of memory");
    CHECK_OK(kim_session_read(session, &p->prompt, scores));
    for (uint32_t i = 0; i + 1 < c->count; i++)
        e->scores = worse(e->scores, fabs((double)scores[i].next_logprob - (double)c->logprob[i]));
    e->scored = true;
    free(scores);
    follow(v, c, session, e);
}

// In parts of about `part` tokens, but a picture is never cut.
static void run_parts(const small_vision *v, const prepared *p, kim_session *session, uint32_t part,
                      errors *e)
{
    const vision_conversation *c = p->c;
    uint32_t image = 0, soft = 0; // pictures read, soft tokens of the next one that were passed
    for (uint32_t at = 0; at < c->count;) {
        uint32_t end = at, first = image;
        while (end < c->count && (end - at < part || soft)) {
            kim_image_info info;
            if (c->ids[end++] != v->soft)
                continue;
            kim_image_get_info(p->images[image], &info);
            if (++soft == info.tiles * info.tile_tokens) {
                image++;
                soft = 0;
            }
        }
        const kim_prompt prompt = { .tokens = p->ids + at,
                                    .count = end - at,
                                    .images = p->images + first,
                                    .n_images = image - first };
        CHECK_OK(kim_session_read(session, &prompt, NULL));
        at = end;
    }
    CHECK(image == c->pictures && !soft, "%s: %u pictures were read", c->name, image);
    follow(v, c, session, e);
}

// ---------------------------------------------------------------------------------- the models

static void check_info(const small_vision *v, const kim_model *model)
{
    const kim_model_info *i = kim_model_get_info(model);
    CHECK(i->vision && i->image_size == v->shape.image && i->image_patch == v->shape.patch &&
              i->image_tokens == v->shape.tokens && i->vision_layers == v->shape.layers &&
              i->vision_hidden == v->shape.hidden && i->vocab == v->vocab,
          "the information about the vision part is wrong");
    CHECK(i->image_token == v->soft, "soft tokens stand as %d, not %d", (int)i->image_token,
          (int)v->soft);
}

static void report(const char *what, const errors *e)
{
    char text[64];
    CHECK(e->compared, "no position was compared");
    printf("  %s, %u positions:\n", what, e->compared);
    snprintf(text, sizeof text, "    KL divergence, worst");
    check_figure(text, e->divergence, MOST_DIVERGENCE);
    check_figure("    logits, worst", e->logits, MOST_LOGITS);
    if (e->scored)
        check_figure("    log-probability of a token of a prompt, worst", e->scores, MOST_LOGITS);
    check_figure("    other first tokens", e->others, 0);
}

static void test_conversations(const model_options *o, const small_vision *v, kim_model *model,
                               kim_image *const *images)
{
    const uint32_t tokens = v->shape.tokens;
    // small pictures: borders of batches fall on every token of a picture in turn
    const uint32_t last = tokens > 64 ? tokens + 1 : 2 * tokens, all = last - tokens + 2;
    const uint32_t tried = o->limit && o->limit < all ? o->limit : all;
    errors whole = { 0 }, parts = { 0 };
    for (uint32_t b = 0; b < tried; b++) {
        const uint32_t batch = b == 0 ? 512 : tokens + b - 1;
        kim_session *session;
        CHECK_OK(kim_session_create(&session, model,
                                    &(kim_session_params){ .context = 1024, .batch = batch }));
        for (uint32_t i = 0; i < v->n_conversations; i++) {
            prepared p = prepare(model, images, &v->conversations[i]);
            run_scored(v, &p, session, &whole);
            CHECK_OK(kim_session_cut(session, 0));
            run_parts(v, &p, session, 1 + (7 * b + i) % 23, &parts);
            CHECK_OK(kim_session_cut(session, 0));
            finish(&p);
        }
        kim_session_destroy(&session);
    }
    printf("  %u conversations in batches of 512 and %u others from %u on\n", v->n_conversations,
           tried - 1, tokens);
    report("read in one call", &whole);
    report("read in parts", &parts);
}

static void test_model(const model_options *o, kim_gpu *gpu, const char *name)
{
    const double start = seconds_now();
    small_vision v;
    kim_model *model;
    small_vision_open(&v, o->tests_folder, name);
    CHECK_OK(
        kim_model_open(&model, gpu, v.text_path, &(kim_model_params){ .mmproj = v.mmproj_path }));
    printf("%s: %u soft tokens a tile, window %u\n", name, v.shape.tokens,
           kim_model_get_info(model)->window);
    check_info(&v, model);
    kim_image **images = make_images(&v, model);
    test_conversations(o, &v, model, images);
    for (uint32_t i = 0; i < v.n_pictures; i++)
        kim_image_destroy(&images[i]);
    free(images);
    kim_model_destroy(&model);
    small_vision_close(&v);
    printf("  %.1f s\n", seconds_now() - start);
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "border", "odd", "q8", "896" };
    model_options o = { 0 };
    model_options_read(&o, argc, argv);
    kim_gpu *gpu = model_gpu(&o);
    for (size_t i = 0; i < sizeof names / sizeof names[0] - (o.limit == 1); i++)
        test_model(&o, gpu, names[i]);
    model_gpu_finish(&gpu);
    CHECK(!failed_figures(), "%u figures are worse than their limits", failed_figures());
    return 0;
}
