// SPDX-License-Identifier: MIT
// One model from its different files gives the same to the last bit: soft tokens and logits, from
// GGUF files and folders, quantised beforehand and while loading.
//
//   folders_test TESTS_FOLDER [MODEL] [--device D] [--mode address|table] [--validation]
#include "files_support.h"
#include "model_support.h"

enum { SOFT = SMALL_TOKENS * SMALL_HIDDEN };

typedef struct answers {
    float soft[SOFT];
    float logits[512];
} answers;

typedef struct loading {
    uint64_t done, total;
    uint32_t calls;
} loading;

static bool watch(void *user, uint64_t done, uint64_t total)
{
    loading *l = user;
    CHECK(done >= l->done && done <= total && (!l->total || l->total == total),
          "progress goes from %llu of %llu to %llu of %llu", (unsigned long long)l->done,
          (unsigned long long)l->total, (unsigned long long)done, (unsigned long long)total);
    *l = (loading){ done, total, l->calls + 1 };
    return true;
}

static kim_image *see(kim_model *m, answers *a)
{
    static uint8_t rgb[30 * 20 * 3];
    kim_image *image;
    for (uint32_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * 2654435761u >> 24);
    CHECK_OK(kim_image_from_pixels(&image, rgb, 30, 20, 3, 0));
    const kim_image *const images[] = { image };
    CHECK_OK(kim_images_encode(m, (kim_image *const *)images, 1, NULL, NULL));
    memcpy(a->soft, kim_image_get_soft_tokens(image, 0), sizeof a->soft);
    return image;
}

// What the model makes of a picture and some tokens.
static void ask(kim_gpu *gpu, const char *path, kim_model_params params, answers *a)
{
    kim_model *m;
    kim_session *s;
    loading l = { 0 };
    int32_t *ids;
    uint32_t count;
    memset(a, 0, sizeof *a);
    params.progress = watch;
    params.progress_user = &l;
    CHECK_OK(kim_model_open(&m, gpu, path, &params));
    CHECK(l.calls && l.done == l.total, "progress ends at %llu of %llu", (unsigned long long)l.done,
          (unsigned long long)l.total);
    CHECK_OK(kim_session_create(&s, m, NULL));
    kim_image *image = see(m, a);
    const kim_image *const images[] = { image };
    const kim_message message = { .role = "user",
                                  .text = "the thing in the <start_of_image> and on",
                                  .images = images,
                                  .n_images = 1 };
    CHECK_OK(kim_chat_tokens(m, &message, 1, &ids, &count));
    CHECK_OK(kim_session_read(
        s, &(kim_prompt){ .tokens = ids, .count = count, .images = images, .n_images = 1 }, NULL));
    memcpy(a->logits, kim_session_logits(s), kim_model_get_info(m)->vocab * sizeof(float));
    CHECK(a->logits[0] != a->logits[1] && a->soft[0] != a->soft[1], "all is the same");
    kim_free(ids);
    kim_image_destroy(&image);
    kim_session_destroy(&s);
    kim_model_destroy(&m);
}

static void check_same(const char *what, const answers *a, const answers *b)
{
    printf("%s\n", what);
    for (uint32_t i = 0; i < SOFT; i++)
        CHECK(a->soft[i] == b->soft[i], "soft tokens[%u] are %g and %g", i, (double)a->soft[i],
              (double)b->soft[i]);
    for (uint32_t i = 0; i < 512; i++)
        CHECK(a->logits[i] == b->logits[i], "logits[%u] are %g and %g", i, (double)a->logits[i],
              (double)b->logits[i]);
}

static void test_plain(kim_gpu *gpu, const small_files *s, const char *text, const char *mmproj)
{
    static const char *const dtypes[] = { "F32", "F16", "BF16" };
    static const uint32_t types[] = { 0, 1, 30 };
    static answers a, b;
    for (uint32_t i = 0; i < 3; i++) {
        char what[64];
        small_write_text(s, "text.gguf", types[i]);
        small_write_projector(s, "mmproj.gguf", types[i], false);
        ask(gpu, text, (kim_model_params){ .mmproj = mmproj }, &a);
        small_remove_folder(s);
        small_write_folder(s, &(small_folder){ .dtype = dtypes[i],
                                               .names = (small_names)i,
                                               .shards = i == 1 ? 3 : 1,
                                               .new_config = i == 2 });
        ask(gpu, s->folder, (kim_model_params){ 0 }, &b);
        snprintf(what, sizeof what, "%s: GGUF files and a folder", dtypes[i]);
        check_same(what, &a, &b);
        small_remove_folder(s);
    }
    small_write_text(s, "text.gguf", 30);
    small_write_projector(s, "mmproj.gguf", 30, true);
    ask(gpu, text, (kim_model_params){ .mmproj = mmproj }, &a);
    check_same("an old projector, ffn_up and ffn_down swapped", &a, &b);
}

static void test_quantized(kim_gpu *gpu, const small_files *s, const char *text, const char *mmproj)
{
    static const char *const names[] = { "q8_0", "q4_0" };
    static const uint32_t types[] = { 8, 2 };
    static answers a, b;
    for (uint32_t i = 0; i < 2; i++) {
        char what[64];
        small_write_text(s, "text.gguf", types[i]);
        small_write_projector(s, "mmproj.gguf", 30, false);
        ask(gpu, text, (kim_model_params){ .mmproj = mmproj }, &a);
        small_remove_folder(s);
        small_write_folder(s, &(small_folder){ .dtype = "BF16", .shards = 3 });
        ask(gpu, s->folder, (kim_model_params){ .quantize = names[i] }, &b);
        snprintf(what, sizeof what, "%s: in the file, and made while loading", names[i]);
        check_same(what, &a, &b);
        small_remove_folder(s);
    }
}

static void test_failure(kim_gpu *gpu, const small_files *s)
{
    kim_model *m;
    small_write_folder(s, &(small_folder){ .dtype = "BF16", .shards = 1 });
    small_edit(s, "config.json", "\"num_attention_heads\":2,\"num_hidden_layers\":2",
               "\"num_attention_heads\":2,\"num_hidden_layers\":3");
    CHECK_FAILS(kim_model_open(&m, gpu, s->folder, NULL), KIM_ERR_FORMAT, "v.blk.2.");
    CHECK(!kim_gpu_memory_used(gpu), "memory is kept after a failure");
}

int main(int argc, char **argv)
{
    static small_files s;
    char text[512], mmproj[512];
    model_options o = { 0 };
    model_options_read(&o, argc, argv);
    kim_gpu *gpu = model_gpu(&o);
    small_files_make(&s, o.tests_folder);
    snprintf(text, sizeof text, "%s", small_path(&s, "text.gguf"));
    snprintf(mmproj, sizeof mmproj, "%s", small_path(&s, "mmproj.gguf"));
    test_plain(gpu, &s, text, mmproj);
    test_quantized(gpu, &s, text, mmproj);
    test_failure(gpu, &s);
    small_files_destroy(&s);
    model_gpu_finish(&gpu);
    return 0;
}
