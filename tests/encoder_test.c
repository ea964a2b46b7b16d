// SPDX-License-Identifier: MIT
// The vision encoder against the reference implementation, its memory, and what it refuses.
//
//   encoder_test TESTS_FOLDER [MODEL] [--device D] [--mode address|table] [--validation]
//                [--limit N]
//
// --limit: pictures of each model; 0: all
#include "vision_support.h"

#include "vision/tiles.h"

#include <math.h>
#include <pthread.h>

// The reference computes with the very numbers of the file, whatever their type, and the device in
// fp32: so one bound does for F32, BF16, F16 and Q8_0. What is left is the order of sums: 6e-7 and
// 3e-6 were seen.
#define MOST_ERROR 1e-5  // of all soft tokens of a picture, of their norm
#define MOST_SINGLE 5e-5 // of a single one, of the root of their mean square
#define MOST_OTHER 1e-5  // alone and in a batch: other pipelines where rows are few

static uint32_t adler32(const uint8_t *data, uint64_t size)
{
    uint32_t a = 1, b = 0;
    for (uint64_t i = 0; i < size; i++) {
        a = (a + data[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

// A file under the tensors' names, and the encoder of it.
typedef struct opened {
    gguf *file;
    tensors *files;
    encoder *e;
} opened;

static kim_err try_open(opened *o, kim_gpu *gpu, const char *path, const encoder_shape *shape)
{
    CHECK_OK(gguf_open(&o->file, path));
    CHECK_OK(tensors_from_gguf(&o->files, o->file));
    return encoder_create(&o->e, gpu, o->files, shape, 0, NULL, NULL);
}

static void close_all(opened *o)
{
    encoder_destroy(&o->e);
    tensors_destroy(&o->files);
    gguf_close(&o->file);
}

static uint64_t tile_floats(const encoder_shape *s)
{
    return (uint64_t)s->tokens * s->text_hidden;
}

static tiles make_tiles(const small_vision *v, const vision_picture *p)
{
    tiles t;
    picture from = { .width = p->width, .height = p->height, .rgb = vision_pixels(p) };
    CHECK_OK(tiles_make(&t, &from, v->shape.image, &(pan_and_scan){ .on = p->pan_and_scan }));
    free(from.rgb);
    CHECK(t.count == p->tiles, "%u x %u has %u tiles, not %u", p->width, p->height, t.count,
          p->tiles);
    const uint64_t bytes = 3ull * t.size * t.size;
    for (uint32_t i = 0; i < t.count; i++)
        CHECK(adler32(t.rgb + i * bytes, bytes) == p->sums[i],
              "tile %u of %u x %u has other pixels than the reference's", i, p->width, p->height);
    return t;
}

// ------------------------------------------------------------------------------ the reference

// |got - want| / |want|
static double relative(const float *got, uint32_t stride, const float *want, uint64_t count,
                       double *single)
{
    double error = 0, norm = 0, worst = 0;
    for (uint64_t i = 0; i < count; i++) {
        const double e = (double)got[i * stride] - (double)want[i];
        error += e * e;
        norm += (double)want[i] * (double)want[i];
        if (!(fabs(e) <= worst))
            worst = fabs(e);
    }
    if (single)
        *single = worst / sqrt(norm / (double)count);
    return sqrt(error / norm);
}

static void test_picture(const small_vision *v, encoder *e, uint32_t index)
{
    const vision_picture *p = &v->pictures[index];
    const uint64_t each = tile_floats(&v->shape), image = v->shape.image;
    char what[64];
    double single;
    tiles t = make_tiles(v, p);
    float *soft = malloc(t.count * each * sizeof *soft);
    CHECK(soft, "out of memory");
    CHECK_OK(encoder_encode(e, t.rgb, t.count, soft, NULL, NULL));
    const double error = relative(soft, p->stride, p->soft, p->values, &single);
    snprintf(what, sizeof what, "picture %u, %u x %u: soft tokens", index, p->width, p->height);
    check_figure(what, error, MOST_ERROR);
    check_figure("    of a single value, the worst", single, MOST_SINGLE);
    float *alone = malloc(each * sizeof *alone);
    CHECK(alone, "out of memory");
    for (uint32_t i = 0; i < t.count && t.count > 1; i++) {
        CHECK_OK(encoder_encode(e, t.rgb + i * 3 * image * image, 1, alone, NULL, NULL));
        check_figure("    a tile alone and with the others",
                     relative(alone, 1, soft + i * each, each, NULL), MOST_OTHER);
    }
    free(alone);
    free(soft);
    tiles_destroy(&t);
}

static void test_model(const model_options *o, kim_gpu *gpu, const char *name)
{
    const double start = seconds_now();
    small_vision v;
    opened s;
    uint64_t weights, activations;
    double seconds, operations;
    small_vision_open(&v, o->tests_folder, name);
    printf("%s: pictures of %u, patches of %u, %u layers of %u, %u heads, %u soft tokens of %u\n",
           name, v.shape.image, v.shape.patch, v.shape.layers, v.shape.hidden, v.shape.heads,
           v.shape.tokens, v.shape.text_hidden);
    const uint64_t before = kim_gpu_memory_used(gpu);
    CHECK_OK(try_open(&s, gpu, v.mmproj_path, &v.shape));
    encoder_plan(s.e, &weights, &activations);
    CHECK(kim_gpu_memory_used(gpu) - before == weights, "the weights take %llu bytes, planned %llu",
          (unsigned long long)(kim_gpu_memory_used(gpu) - before), (unsigned long long)weights);
    for (uint32_t i = 0; i < v.n_pictures && (!o->limit || i < o->limit); i++)
        test_picture(&v, s.e, i);
    CHECK(kim_gpu_memory_used(gpu) - before == weights + activations,
          "all takes %llu bytes, planned %llu + %llu",
          (unsigned long long)(kim_gpu_memory_used(gpu) - before), (unsigned long long)weights,
          (unsigned long long)activations);
    encoder_get_speed(s.e, &seconds, &operations);
    CHECK(seconds >= 0 && operations > 0, "the speed is %g operations in %g s", operations,
          seconds);
    close_all(&s);
    CHECK(kim_gpu_memory_used(gpu) == before, "%llu bytes were not given back",
          (unsigned long long)(kim_gpu_memory_used(gpu) - before));
    small_vision_close(&v);
    printf("  %.1f s\n", seconds_now() - start);
}

// -------------------------------------------------------------------------- calls and callers

typedef struct counting {
    uint64_t calls, stop_at, done, total; // stop_at: the call that returns false; 0: none
} counting;

static bool count_progress(void *user, uint64_t done, uint64_t total)
{
    counting *c = user;
    CHECK(done > c->done && done <= total && (!c->total || total == c->total),
          "progress went from %llu of %llu to %llu of %llu", (unsigned long long)c->done,
          (unsigned long long)c->total, (unsigned long long)done, (unsigned long long)total);
    c->done = done;
    c->total = total;
    return ++c->calls != c->stop_at;
}

typedef struct caller {
    pthread_t thread;
    encoder *e;
    const tiles *t;
    float *soft;
} caller;

static void *call(void *user)
{
    caller *c = user;
    for (int i = 0; i < 3; i++)
        CHECK_OK(encoder_encode(c->e, c->t->rgb, c->t->count, c->soft, NULL, NULL));
    return NULL;
}

// More tiles than go at once, two pictures in turn: full batches, and one that is not.
static void test_batches(const small_vision *v, encoder *e)
{
    const uint64_t each = tile_floats(&v->shape), bytes = 3ull * v->shape.image * v->shape.image;
    const uint32_t side = v->shape.image / v->shape.patch, at_once = 4096 / (side * side);
    const uint32_t count = 2 * at_once + 3;
    tiles first = make_tiles(v, &v->pictures[0]), second = make_tiles(v, &v->pictures[1]);
    uint8_t *rgb = malloc(count * bytes);
    float *soft = malloc(count * each * sizeof *soft);
    CHECK(rgb && soft, "out of memory");
    for (uint32_t i = 0; i < count; i++)
        memcpy(rgb + i * bytes, i % 3 == 1 ? second.rgb : first.rgb, bytes);
    CHECK_OK(encoder_encode(e, rgb, count, soft, NULL, NULL));
    for (uint32_t i = 2; i < count; i++) {
        const double error = relative(soft + i * each, 1, soft + (i % 3 == 1) * each, each, NULL);
        CHECK(error <= MOST_OTHER, "%u tiles, %u at once: tile %u differs by %g", count, at_once, i,
              error);
    }
    free(rgb);
    free(soft);
    tiles_destroy(&first);
    tiles_destroy(&second);
}

static void test_calls(const model_options *o, kim_gpu *gpu)
{
    small_vision v;
    opened s;
    small_vision_open(&v, o->tests_folder, "border");
    CHECK_OK(try_open(&s, NULL, v.mmproj_path, &v.shape));
    float nothing;
    CHECK_FAILS(encoder_encode(s.e, NULL, 0, &nothing, NULL, NULL), KIM_ERR_ARGUMENT,
                "without a gpu");
    close_all(&s);

    CHECK_OK(try_open(&s, gpu, v.mmproj_path, &v.shape));
    tiles t = make_tiles(&v, &v.pictures[2]);
    const uint64_t floats = t.count * tile_floats(&v.shape);
    float *want = malloc(floats * sizeof *want);
    CHECK(want, "out of memory");
    counting c = { .stop_at = 2 };
    CHECK_FAILS(encoder_encode(s.e, t.rgb, t.count, want, count_progress, &c), KIM_ERR_CANCELLED,
                "cancelled");
    CHECK(c.calls == 2, "it went on to call %llu", (unsigned long long)c.calls);
    c = (counting){ 0 };
    CHECK_OK(encoder_encode(s.e, t.rgb, t.count, want, count_progress, &c));
    CHECK(c.calls == v.shape.layers && c.done == c.total, "%llu calls, %llu of %llu",
          (unsigned long long)c.calls, (unsigned long long)c.done, (unsigned long long)c.total);
    caller callers[4];
    for (int i = 0; i < 4; i++) {
        callers[i] = (caller){ .e = s.e, .t = &t, .soft = malloc(floats * sizeof(float)) };
        CHECK(callers[i].soft, "out of memory");
        CHECK(!pthread_create(&callers[i].thread, NULL, call, &callers[i]), "no thread");
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(callers[i].thread, NULL);
        CHECK(!memcmp(callers[i].soft, want, floats * sizeof *want),
              "four callers at once: the soft tokens of caller %d are others", i);
        free(callers[i].soft);
    }
    test_batches(&v, s.e);
    free(want);
    tiles_destroy(&t);
    close_all(&s);
    small_vision_close(&v);
}

// ------------------------------------------------------------------------------------- errors

// The shape with one field changed.
static void test_shapes(const small_vision *v)
{
    const encoder_shape *right = &v->shape;
    encoder_shape s = *right;
    opened o = { 0 };
#define REFUSES(field, value, code, words)                                                         \
    do {                                                                                           \
        s = *right;                                                                                \
        s.field = (value);                                                                         \
        CHECK_FAILS(try_open(&o, NULL, v->mmproj_path, &s), code, words);                          \
        CHECK(!o.e, "an encoder was made in spite of %s", #field);                                 \
        CHECK(strstr(kim_error_text(), v->mmproj_path), "\"%s\" does not name the file",           \
              kim_error_text());                                                                   \
        close_all(&o);                                                                             \
    } while (0)
    REFUSES(image, 0, KIM_ERR_FORMAT, "image size is 0");
    REFUSES(image, 33, KIM_ERR_FORMAT, "pictures of 33 pixels are not whole patches of 4");
    REFUSES(image, 36, KIM_ERR_FORMAT, "9 x 9 patches cannot be averaged to 16");
    REFUSES(image, 16384, KIM_ERR_FORMAT, "number of patches");
    REFUSES(patch, 64, KIM_ERR_FORMAT, "patch size is 64");
    REFUSES(patch, 8, KIM_ERR_FORMAT, "v.patch_embd.weight has the shape 4 x 4 x 3 x 64");
    REFUSES(tokens, 15, KIM_ERR_FORMAT, "averaged to 15 soft tokens");
    REFUSES(tokens, 256, KIM_ERR_FORMAT, "averaged to 256 soft tokens");
    REFUSES(heads, 3, KIM_ERR_UNSUPPORTED, "3 heads of an encoder of width 64");
    REFUSES(heads, 4, KIM_ERR_UNSUPPORTED, "32 to 256");
    REFUSES(hidden, 128, KIM_ERR_FORMAT, "v.patch_embd.weight has the shape 4 x 4 x 3 x 64");
    REFUSES(layers, 0, KIM_ERR_FORMAT, "number of layers is 0");
    REFUSES(layers, 4, KIM_ERR_FORMAT, "v.blk.3.ln1.weight is missing");
    REFUSES(feed_forward, 104, KIM_ERR_FORMAT, "v.blk.0.ffn_up.weight has the shape 64 x 100");
    REFUSES(feed_forward, 102, KIM_ERR_UNSUPPORTED, "multiple of 4");
    REFUSES(text_hidden, 64, KIM_ERR_FORMAT, "mm.input_projection.weight has the shape 96 x 64");
    REFUSES(eps, 0, KIM_ERR_FORMAT, "epsilon");
    REFUSES(eps, NAN, KIM_ERR_FORMAT, "epsilon");
    REFUSES(std[1], 0, KIM_ERR_FORMAT, "deviation");
    REFUSES(std[1], 1e-42f, KIM_ERR_FORMAT, "numbers too large");
    REFUSES(mean[2], INFINITY, KIM_ERR_FORMAT, "mean");
#undef REFUSES
}

// A copy of the file in which bytes after a tensor's name are others.
//
// after: bytes from the end of the name to what is changed, a u32
static void refuse_bytes(const small_vision *v, const char *name, int after, uint32_t value,
                         kim_err code, const char *words)
{
    opened o = { 0 };
    FILE *file = fopen(v->mmproj_path, "rb");
    CHECK(file, "%s cannot be opened", v->mmproj_path);
    fseek(file, 0, SEEK_END);
    const size_t size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(size);
    CHECK(data && fread(data, 1, size, file) == size, "%s cannot be read", v->mmproj_path);
    fclose(file);
    uint8_t *at = memmem(data, size, name, strlen(name));
    CHECK(at, "there is no %s", name);
    memcpy(at + (int)strlen(name) + after, &value, sizeof value);
    CHECK_OK(gguf_open_memory(&o.file, data, size, "changed"));
    CHECK_OK(tensors_from_gguf(&o.files, o.file));
    CHECK_FAILS(encoder_create(&o.e, NULL, o.files, &v->shape, 0, NULL, NULL), code, words);
    CHECK(strstr(kim_error_text(), "changed"), "\"%s\" does not name the file", kim_error_text());
    close_all(&o);
    free(data);
}

static void test_errors(const model_options *o)
{
    // behind a name: the number of dimensions, each of them in 8 bytes, the type
    enum { VECTOR_TYPE = 4 + 8, MATRIX_TYPE = 4 + 16, LAST_LETTERS = -4 };
    enum { I32 = 26, I16 = 25, Q4_0 = 2 };
    uint32_t other;
    small_vision v;
    memcpy(&other, "iaz!", 4);
    small_vision_open(&v, o->tests_folder, "border");
    test_shapes(&v);
    refuse_bytes(&v, "v.post_ln.bias", LAST_LETTERS, other, KIM_ERR_FORMAT,
                 "the tensor v.post_ln.bias is missing");
    refuse_bytes(&v, "v.blk.2.attn_k.bias", LAST_LETTERS, other, KIM_ERR_FORMAT,
                 "the tensor v.blk.2.attn_k.bias is missing");
    refuse_bytes(&v, "v.blk.1.ln2.weight", VECTOR_TYPE, I32, KIM_ERR_UNSUPPORTED,
                 "v.blk.1.ln2.weight is of type I32");
    refuse_bytes(&v, "v.blk.1.ffn_up.weight", MATRIX_TYPE, I16, KIM_ERR_UNSUPPORTED,
                 "v.blk.1.ffn_up.weight has type I16");
    refuse_bytes(&v, "v.blk.1.attn_v.weight", MATRIX_TYPE, Q4_0, KIM_ERR_UNSUPPORTED,
                 "v.blk.1.attn_v.weight is of type Q4_0; F32, F16, BF16 or Q8_0 is expected");
    refuse_bytes(&v, "mm.input_projection.weight", MATRIX_TYPE, Q4_0, KIM_ERR_UNSUPPORTED,
                 "mm.input_projection.weight is of type Q4_0");
    small_vision_close(&v);
}

// ----------------------------------------------------------------------------- published size

static void test_plan(const model_options *o)
{
    small_vision v;
    opened s;
    uint64_t weights, activations;
    vision_plan_open(&v, o->tests_folder);
    CHECK_OK(try_open(&s, NULL, v.mmproj_path, &v.shape));
    encoder_plan(s.e, &weights, &activations);
    close_all(&s);
    small_vision_close(&v);
    printf("published shape:\n");
    check_figure("weights, MB", (double)weights / 1e6, 860);
    check_figure("all else while a picture is encoded, MB", (double)activations / 1e6, 150);
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "border", "odd", "q8", "896" };
    model_options o = { 0 };
    model_options_read(&o, argc, argv);
    kim_gpu *gpu = model_gpu(&o);
    test_errors(&o);
    test_plan(&o);
    test_calls(&o, gpu);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        test_model(&o, gpu, names[i]);
    model_gpu_finish(&gpu);
    CHECK(!failed_figures(), "%u figures are worse than their limits", failed_figures());
    return 0;
}
