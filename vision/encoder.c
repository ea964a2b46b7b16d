// SPDX-License-Identifier: MIT
// The vision encoder: its tensors checked, placed and loaded; tiles encoded.
#include "encoder_parts.h"

#include "tiles.h"

#include "host/error.h"
#include "host/ops_pipelines.h"
#include "host/threads.h"
#include "host/weight_quantize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --------------------------------------------------------------------------------------- shape

static kim_err check_range(const char *path, const char *what, uint32_t value, uint32_t most)
{
    if (value && value <= most)
        return KIM_OK;
    return kim_fail(KIM_ERR_FORMAT, "%s: the encoder's %s is %u; 1 to %u is expected", path, what,
                    value, most);
}

// What single numbers are. The limits keep products of any three within 64 bits.
static kim_err check_ranges(const encoder_shape *s, const char *path)
{
    kim_err err = KIM_OK;
    TRY(check_range(path, "image size", s->image, 16384));
    TRY(check_range(path, "patch size", s->patch, s->image));
    TRY(check_range(path, "hidden size", s->hidden, 65536));
    TRY(check_range(path, "feed-forward size", s->feed_forward, 1u << 18));
    TRY(check_range(path, "number of layers", s->layers, 1024));
    TRY(check_range(path, "number of heads", s->heads, s->hidden));
    TRY(check_range(path, "number of soft tokens", s->tokens, 65536));
    TRY(check_range(path, "projection size", s->text_hidden, 65536));
    if (!(s->eps > 0) || !isfinite(s->eps))
        FAIL(KIM_ERR_FORMAT, "%s: the encoder's epsilon is %g; a number above 0 is expected", path,
             (double)s->eps);
    for (uint32_t c = 0; c < 3; c++)
        if (!isfinite(s->mean[c]) || !isfinite(s->std[c]) || !(s->std[c] > 0))
            FAIL(KIM_ERR_FORMAT,
                 "%s: the pixels' mean %g and deviation %g are not of numbers, and above 0", path,
                 (double)s->mean[c], (double)s->std[c]);
error:
    return err;
}

// What they are to each other. Sets side, pool and patch_width.
static kim_err check_shape(encoder *e, const char *path)
{
    kim_err err = KIM_OK;
    const encoder_shape *s = &e->shape;
    TRY(check_ranges(s, path));
    if (s->image % s->patch)
        FAIL(KIM_ERR_FORMAT, "%s: pictures of %u pixels are not whole patches of %u", path,
             s->image, s->patch);
    e->side = s->image / s->patch;
    TRY(check_range(path, "number of patches", e->side * e->side, 65535));
    if (s->hidden % s->heads || s->hidden / s->heads % 4 || s->hidden / s->heads < 32 ||
        s->hidden / s->heads > 256)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: %u heads of an encoder of width %u are not of 32 to 256 elements, in fours", path,
             s->heads, s->hidden);
    if (s->feed_forward % 4)
        FAIL(KIM_ERR_UNSUPPORTED, "%s: the encoder's feed-forward size %u is not a multiple of 4",
             path, s->feed_forward);
    uint32_t tokens_side = 1;
    while (tokens_side * tokens_side < s->tokens)
        tokens_side++;
    if (tokens_side * tokens_side != s->tokens || e->side % tokens_side)
        FAIL(KIM_ERR_FORMAT, "%s: %u x %u patches cannot be averaged to %u soft tokens", path,
             e->side, e->side, s->tokens);
    e->pool = e->side / tokens_side;
    e->patch_width = (3 * s->patch * s->patch + 3) / 4 * 4;
error:
    return err;
}

// ------------------------------------------------------------------------------------- tensors

enum { F32 = 0, F16 = 1 }; // GGML's numbers

// One walk over the tensors checks and places them, a second one uploads them.
typedef struct loader {
    encoder *e;
    const tensors *files;
    uploader *to; // NULL: the first walk
    float norm_add;
    bool swapped; // ffn_up and ffn_down have each other's names
} loader;

typedef struct tensor_name {
    char text[64];
} tensor_name;

static const char *layer_name(tensor_name *n, uint32_t layer, const char *what, const char *kind)
{
    snprintf(n->text, sizeof n->text, "v.blk.%u.%s.%s", layer, what, kind);
    return n->text;
}

// f32 on the device, from tensors of `rows` rows that stand one after the other there.
static kim_err load_vectors(const loader *l, const char *const *names, uint32_t n, uint32_t width,
                            uint32_t rows, float add, span *to)
{
    kim_err err = KIM_OK;
    float *values = NULL;
    const uint64_t each = (uint64_t)width * rows;
    const file_tensor *t;
    for (uint32_t i = 0; i < n; i++)
        TRY(tensors_expect_plain(l->files, names[i], width, rows, &t));
    if (!l->to) {
        if (n * each * 4 > l->e->weights.block_limit)
            FAIL(KIM_ERR_UNSUPPORTED, "%s: %s does not fit in a block of %llu bytes", t->path,
                 t->name, (unsigned long long)l->e->weights.block_limit);
        TRY(pool_place(&l->e->weights, n * each * 4, to));
        to->name = t->name;
        return KIM_OK;
    }
    values = malloc(n * each * sizeof *values);
    REQUIRE_MEMORY(values);
    for (uint32_t i = 0; i < n; i++)
        TRY(file_tensor_read(tensors_find(l->files, names[i]), values + i * each));
    for (uint64_t i = 0; i < n * each; i++)
        values[i] += add;
    TRY(upload_bytes(l->to, to, values, to->bytes));
error:
    free(values);
    return err;
}

static kim_err load_vector(const loader *l, const char *name, uint32_t width, span *to)
{
    return load_vectors(l, &name, 1, width, 1, 0, to);
}

static kim_err check_type(const loader *l, const matrix_source *s)
{
    if (weight_is_plain(s->type->ggml) || !strcmp(s->type->name, "Q8_0"))
        return KIM_OK;
    return kim_fail(KIM_ERR_UNSUPPORTED,
                    "%s: the tensor %s is of type %s; F32, F16, BF16 or Q8_0 is expected",
                    tensors_path(l->files), s->name, s->type->name);
}

// Up to three matrices of a layer, whose outputs stand one after the other, with their biases.
static kim_err load_affine(const loader *l, uint32_t layer, const char *const *names, uint32_t n,
                           uint32_t width, uint32_t rows, affine *to)
{
    kim_err err = KIM_OK;
    matrix_source s[LINEAR_MAX_SOURCES];
    tensor_name weight, bias[LINEAR_MAX_SOURCES];
    const char *biases[LINEAR_MAX_SOURCES];
    for (uint32_t i = 0; i < n; i++) {
        biases[i] = layer_name(&bias[i], layer, names[i], "bias");
        if (l->to)
            continue;
        TRY(matrix_find(l->files, layer_name(&weight, layer, names[i], "weight"), width, rows,
                        &s[i]));
        TRY(check_type(l, &s[i]));
    }
    if (l->to)
        TRY(upload_linear(l->to, &to->w));
    else
        TRY(linear_place(&to->w, &l->e->weights, s, n, width, false));
    TRY(load_vectors(l, biases, n, rows, 1, 0, &to->bias));
error:
    return err;
}

static kim_err load_norm(const loader *l, const char *weight, const char *bias, layer_norm *to)
{
    kim_err err = KIM_OK;
    TRY(load_vector(l, weight, l->e->shape.hidden, &to->w));
    TRY(load_vector(l, bias, l->e->shape.hidden, &to->b));
error:
    return err;
}

static kim_err load_layer_norm(const loader *l, uint32_t layer, const char *name, layer_norm *to)
{
    tensor_name weight, bias;
    return load_norm(l, layer_name(&weight, layer, name, "weight"),
                     layer_name(&bias, layer, name, "bias"), to);
}

static kim_err load_layer(const loader *l, uint32_t i)
{
    static const char *const qkv[] = { "attn_q", "attn_k", "attn_v" }, *const out = "attn_out";
    kim_err err = KIM_OK;
    const encoder_shape *s = &l->e->shape;
    encoder_layer *w = &l->e->layers[i];
    const char *const up = l->swapped ? "ffn_down" : "ffn_up";
    const char *const down = l->swapped ? "ffn_up" : "ffn_down";
    TRY(load_layer_norm(l, i, "ln1", &w->before_attention));
    TRY(load_affine(l, i, qkv, 3, s->hidden, s->hidden, &w->qkv));
    TRY(load_affine(l, i, &out, 1, s->hidden, s->hidden, &w->out));
    TRY(load_layer_norm(l, i, "ln2", &w->before_feed_forward));
    TRY(load_affine(l, i, &up, 1, s->hidden, s->feed_forward, &w->up));
    TRY(load_affine(l, i, &down, 1, s->feed_forward, s->hidden, &w->down));
error:
    return err;
}

// The rows of the file are rows of patches, `patch` elements each; a matrix row is 3 * patch of
// them.
static kim_err load_patch(const loader *l)
{
    kim_err err = KIM_OK;
    encoder *e = l->e;
    const uint32_t patch = e->shape.patch, width = 3 * patch * patch;
    matrix_source s;
    if (l->to) {
        TRY(upload_linear(l->to, &e->patch.w));
    } else {
        TRY(matrix_find(l->files, "v.patch_embd.weight", patch, 3 * patch * e->shape.hidden, &s));
        TRY(check_type(l, &s));
        s.rows = e->shape.hidden;
        TRY(linear_place(&e->patch.w, &e->weights, &s, 1, width, false));
    }
    TRY(load_vector(l, "v.patch_embd.bias", e->shape.hidden, &e->patch.bias));
    TRY(load_vectors(l, (const char *[]){ "v.position_embd.weight" }, 1, e->shape.hidden,
                     e->side * e->side, 0, &e->positions));
error:
    return err;
}

// Q8_0 as f32: its blocks run along the wrong side.
static void read_q8_0(const uint8_t *from, uint64_t count, float *out)
{
    for (uint64_t i = 0; i < count; i += 32, from += 34) {
        float scale;
        weight_to_floats(F16, from, 1, &scale);
        for (uint32_t j = 0; j < 32; j++)
            out[i + j] = scale * (float)(int8_t)from[2 + j];
    }
}

// The file has the projection as [hidden, text_hidden], in rows of text_hidden: it is transposed on
// its way.
static kim_err load_projection(const loader *l)
{
    kim_err err = KIM_OK;
    encoder *e = l->e;
    const uint32_t hidden = e->shape.hidden, text = e->shape.text_hidden;
    const uint64_t count = (uint64_t)hidden * text;
    uint8_t *turned = NULL;
    float *values = NULL;
    matrix_source s;
    TRY(matrix_find(l->files, "mm.input_projection.weight", text, hidden, &s));
    TRY(check_type(l, &s));
    matrix_source file = s;
    const bool plain = weight_is_plain(s.type->ggml);
    s.type = plain ? s.type : weight_type_find(F32);
    s.rows = text;
    s.file = NULL;
    s.data = NULL;
    s.distinct = 0;
    if (!l->to) {
        TRY(linear_place(&e->project, &e->weights, &s, 1, hidden, false));
        return KIM_OK;
    }
    const uint32_t size = s.type->block_bytes / s.type->block;
    turned = malloc(count * size);
    REQUIRE_MEMORY(turned);
    if (!plain) {
        values = malloc(count * sizeof *values);
        REQUIRE_MEMORY(values);
        read_q8_0(file.data, count, values);
        file.data = (const uint8_t *)values;
    }
    for (uint64_t c = 0; c < hidden; c++) {
        const uint8_t *from = weight_row_at(s.type, file.data, file.distinct, text, c);
        for (uint64_t r = 0; r < text; r++)
            memcpy(turned + (r * hidden + c) * size, from + r * size, size);
    }
    e->project.sources[0].data = turned;
    TRY(upload_linear(l->to, &e->project));
    TRY(uploader_finish(l->to)); // while `turned` is there
error:
    if (l->to)
        e->project.sources[0].data = NULL;
    free(turned);
    free(values);
    return err;
}

static kim_err load_all(const loader *l)
{
    kim_err err = KIM_OK;
    encoder *e = l->e;
    TRY(load_patch(l));
    for (uint32_t i = 0; i < e->shape.layers; i++)
        TRY(load_layer(l, i));
    TRY(load_norm(l, "v.post_ln.weight", "v.post_ln.bias", &e->after));
    TRY(load_vectors(l, (const char *[]){ "mm.soft_emb_norm.weight" }, 1, e->shape.hidden, 1,
                     l->norm_add, &e->norm_soft));
    TRY(load_projection(l));
error:
    return err;
}

// -------------------------------------------------------------------------------------- create

// All pipelines of one tile and of as many as go at once; other numbers of tiles hardly need more.
static kim_err create_pipelines(void *user)
{
    kim_err err = KIM_OK;
    const encoder *e = user;
    const uint32_t n = ENCODER_PRODUCTS(e->shape.layers);
    pipeline_key *keys = NULL;
    uint32_t count;
    matmul_params *products = malloc(2 * n * sizeof *products);
    REQUIRE_MEMORY(products);
    encoder_products(e, 1, products);
    encoder_products(e, e->scratch.tiles, products + n);
    TRY(ops_list_pipelines(e->gpu,
                           &(ops_needs){ .products = products,
                                         .n_products = 2 * n,
                                         .full_head = e->shape.hidden / e->shape.heads },
                           &keys, &count));
    TRY(pipeline_get_all(e->gpu, keys, count));
error:
    free(products);
    free(keys);
    return err;
}

// What each of the 256 values of a pixel becomes, by way of a tile that has all of them.
static kim_err fill_pixels(encoder *e, const char *path)
{
    kim_err err = KIM_OK;
    uint8_t rgb[256][3];
    for (uint32_t i = 0; i < 256; i++)
        memset(rgb[i], (int)i, 3);
    tile_normalise(&rgb[0][0], 16, e->shape.mean, e->shape.std, &e->pixel[0][0]);
    for (uint32_t i = 0; i < 3 * 256; i++)
        if (!isfinite(e->pixel[i / 256][i % 256]))
            FAIL(KIM_ERR_FORMAT, "%s: the pixels' mean %g and deviation %g make numbers too large",
                 path, (double)e->shape.mean[i / 256], (double)e->shape.std[i / 256]);
error:
    return err;
}

static kim_err upload(loader *l, bool (*progress)(void *user, uint64_t done, uint64_t total),
                      void *user)
{
    kim_err err = KIM_OK;
    encoder *e = l->e;
    side_work pipelines; // made meanwhile
    side_work_begin(&pipelines, create_pipelines, e);
    TRY(pool_commit(&e->weights, e->gpu));
    TRY(uploader_create(&l->to, e->gpu, progress, user, pool_bytes(&e->weights)));
    TRY(load_all(l));
    TRY(uploader_finish(l->to));
error:
    uploader_destroy(&l->to);
    return side_work_end(&pipelines, err);
}

kim_err encoder_create(encoder **out, kim_gpu *gpu, const tensors *files,
                       const encoder_shape *shape, float norm_add,
                       bool (*progress)(void *user, uint64_t done, uint64_t total), void *user)
{
    kim_err err = KIM_OK;
    encoder *e = calloc(1, sizeof *e);
    *out = NULL;
    REQUIRE_MEMORY(e);
    pthread_mutex_init(&e->lock, NULL);
    e->gpu = gpu;
    e->shape = *shape;
    pool_init(&e->weights, "weights of the encoder", POOL_DEVICE, gpu ? pool_limit_of(gpu) : 0);
    TRY(check_shape(e, tensors_path(files)));
    TRY(fill_pixels(e, tensors_path(files)));
    e->layers = calloc(shape->layers, sizeof *e->layers);
    REQUIRE_MEMORY(e->layers);
    loader l = { .e = e, .files = files, .norm_add = norm_add };
    const file_tensor *up = tensors_find(files, "v.blk.0.ffn_up.weight");
    l.swapped = up && up->ne[0] == shape->feed_forward && up->ne[1] == shape->hidden &&
                shape->feed_forward != shape->hidden; // else the names are all there is to go by
    TRY(load_all(&l));
    TRY(scratch_place(&e->scratch, e));
    if (gpu)
        TRY(upload(&l, progress, user));
    *out = e;
    return KIM_OK;
error:
    encoder_destroy(&e);
    return err;
}

void encoder_destroy(encoder **ep)
{
    encoder *e = *ep;
    if (!e)
        return;
    encoder_run_destroy(&e->full, e);
    encoder_run_destroy(&e->odd, e);
    scratch_destroy(&e->scratch);
    for (uint32_t i = 0; e->layers && i < e->shape.layers; i++) {
        linear_destroy(&e->layers[i].qkv.w);
        linear_destroy(&e->layers[i].out.w);
        linear_destroy(&e->layers[i].up.w);
        linear_destroy(&e->layers[i].down.w);
    }
    linear_destroy(&e->patch.w);
    linear_destroy(&e->project);
    pool_destroy(&e->weights);
    free(e->layers);
    pthread_mutex_destroy(&e->lock);
    free(e);
    *ep = NULL;
}

const encoder_shape *encoder_get_shape(const encoder *e)
{
    return &e->shape;
}

void encoder_plan(const encoder *e, uint64_t *weights, uint64_t *activations)
{
    const scratch *s = &e->scratch;
    *weights = pool_bytes(&e->weights);
    *activations = pool_bytes(&s->upload) + pool_bytes(&s->device) + pool_bytes(&s->readback);
}

// -------------------------------------------------------------------------------------- encode

// The rows of one tile: patches in reading order; of each, the rows of red, green and blue.
static void write_patches(const encoder *e, const uint8_t *rgb, float *out)
{
    const uint32_t image = e->shape.image, patch = e->shape.patch;
    const uint32_t unused = e->patch_width - 3 * patch * patch;
    for (uint32_t at = 0; at < e->side * e->side; at++) {
        const uint8_t *corner = rgb + 3ull * patch * (at / e->side * image + at % e->side);
        for (uint32_t c = 0; c < 3; c++)
            for (uint32_t y = 0; y < patch; y++)
                for (uint32_t x = 0; x < patch; x++)
                    *out++ = e->pixel[c][corner[3ull * (y * image + x) + c]];
        for (uint32_t i = 0; i < unused; i++)
            *out++ = 0;
    }
}

// Puts the scratch on the device, if it is not there yet.
static kim_err make_ready(encoder *e)
{
    kim_err err = KIM_OK;
    scratch *s = &e->scratch;
    if (e->ready)
        return KIM_OK;
    if (!s->tiles) // a failure left nothing of the plan
        TRY(scratch_place(s, e));
    TRY(pool_commit(&s->upload, e->gpu));
    TRY(pool_commit(&s->device, e->gpu));
    TRY(pool_commit(&s->readback, e->gpu));
    e->ready = true;
    return KIM_OK;
error:
    scratch_destroy(s);
    if (scratch_place(s, e)) // it was possible before: only for want of host memory
        err = KIM_ERR_NO_MEMORY;
    return err;
}

// Floating-point operations of the products of a tile, those of attention included.
static double operations_of(const encoder *e)
{
    const encoder_shape *s = &e->shape;
    const double rows = (double)e->side * e->side, hidden = s->hidden;
    const double layer = 4 * hidden * hidden + 2 * hidden * s->feed_forward + 2 * rows * hidden;
    return 2 * rows * (3.0 * s->patch * s->patch * hidden + s->layers * layer) +
           2.0 * s->tokens * hidden * s->text_hidden;
}

typedef struct progress_report {
    bool (*tell)(void *user, uint64_t done, uint64_t total);
    void *user;
    uint64_t done, total; // layers of all tiles
} progress_report;

static kim_err encode_batch(encoder *e, const uint8_t *rgb, uint32_t count, float *soft,
                            progress_report *report)
{
    kim_err err = KIM_OK;
    encoder_run *run = count == e->scratch.tiles ? &e->full : &e->odd;
    float *pixels = span_map(&e->scratch.pixels);
    const uint64_t rgb_bytes = 3ull * e->shape.image * e->shape.image;
    const uint64_t patch_floats = (uint64_t)e->side * e->side * e->patch_width;
    if (run->tiles != count)
        TRY(encoder_record(e, run, count));
    for (uint32_t i = 0; i < count; i++)
        write_patches(e, rgb + i * rgb_bytes, pixels + i * patch_floats);
    for (uint32_t i = 0; i < e->shape.layers; i++) {
        stream_stats stats;
        TRY(stream_submit(run->streams[i]));
        TRY(stream_wait(run->streams[i]));
        stream_get_stats(run->streams[i], &stats);
        e->seconds += stats.last_seconds;
        report->done += count;
        if (report->tell && !report->tell(report->user, report->done, report->total))
            FAIL(KIM_ERR_CANCELLED, "encoding was cancelled");
    }
    e->operations += count * operations_of(e);
    memcpy(soft, span_map(&e->scratch.soft), 4ull * count * e->shape.tokens * e->shape.text_hidden);
error:
    return err;
}

kim_err encoder_encode(encoder *e, const uint8_t *rgb, uint32_t count, float *soft,
                       bool (*progress)(void *user, uint64_t done, uint64_t total), void *user)
{
    kim_err err = KIM_OK;
    const encoder_shape *s = &e->shape;
    progress_report report = { progress, user, 0, (uint64_t)count * s->layers };
    if (!e->gpu)
        return kim_fail(KIM_ERR_ARGUMENT, "the encoder was made without a gpu");
    pthread_mutex_lock(&e->lock);
    TRY(make_ready(e));
    for (uint32_t done = 0; done < count;) {
        const uint32_t left = count - done;
        const uint32_t n = left < e->scratch.tiles ? left : e->scratch.tiles;
        TRY(encode_batch(e, rgb + 3ull * done * s->image * s->image, n,
                         soft + (uint64_t)done * s->tokens * s->text_hidden, &report));
        done += n;
    }
error:
    pthread_mutex_unlock(&e->lock);
    return err;
}

void encoder_get_speed(encoder *e, double *seconds, double *operations)
{
    pthread_mutex_lock(&e->lock);
    *seconds = e->seconds;
    *operations = e->operations;
    pthread_mutex_unlock(&e->lock);
}
