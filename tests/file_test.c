// SPDX-License-Identifier: MIT
// The writer of files: all or nothing, whatever happens.
#include "host/file.h"
#include "check.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/kim_file_XXXXXX";
static char path[64];

static void expect_failure(kim_err got, const char *file, const char *part)
{
    CHECK(got == KIM_ERR_FILE, "got \"%s\", expected \"file error\"", kim_err_name(got));
    CHECK(strncmp(kim_error_text(), file, strlen(file)) == 0 && strstr(kim_error_text(), part),
          "got \"%s\", expected the file's name and \"%s\"", kim_error_text(), part);
}

// The file has this content, and nothing else is in the folder.
static void expect_content(const char *expected)
{
    file_mapping map;
    CHECK_OK(file_map(&map, path));
    CHECK(map.size == strlen(expected) && memcmp(map.data, expected, map.size) == 0,
          "%s: is not \"%s\"", path, expected);
    file_unmap(&map);
    CHECK(!map.data, "not zero after file_unmap");

    int entries = 0;
    DIR *dir = opendir(folder);
    CHECK(dir, "%s: cannot list", folder);
    while (readdir(dir))
        entries++;
    closedir(dir);
    CHECK(entries == 3, "%d files beside the one", entries - 3); // with "." and ".."
}

static kim_err write_text(const char *to, const char *text)
{
    file_writer *writer;
    kim_err err = file_writer_open(&writer, to);
    if (err)
        return err;
    err = file_writer_write(writer, text, strlen(text));
    if (err) {
        file_writer_abandon(&writer);
        return err;
    }
    err = file_writer_commit(&writer);
    CHECK(!writer, "a writer after commit");
    return err;
}

static void test_replace(void)
{
    CHECK_OK(write_text(path, "first"));
    expect_content("first");
    CHECK(chmod(path, 0600) == 0, "chmod");
    CHECK_OK(write_text(path, "second"));
    expect_content("second");
    struct stat info;
    CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600, "permissions changed");
}

static void test_abandon(void)
{
    file_writer *writer;
    CHECK_OK(file_writer_open(&writer, path));
    CHECK_OK(file_writer_write(writer, "third", 5));
    file_writer_abandon(&writer);
    CHECK(!writer, "a writer after abandon");
    file_writer_abandon(&writer);
    expect_content("second");
}

static void test_two_writers(void)
{
    file_writer *a, *b;
    CHECK_OK(file_writer_open(&a, path));
    CHECK_OK(file_writer_open(&b, path));
    CHECK_OK(file_writer_write(a, "aa", 2));
    CHECK_OK(file_writer_write(b, "bb", 2));
    CHECK_OK(file_writer_commit(&b));
    CHECK_OK(file_writer_commit(&a));
    expect_content("aa");
}

// A limit on the size of files fails as a full disk does.
static void test_full_disk(void)
{
    const struct rlimit small = { 1 << 16, RLIM_INFINITY }, none = { RLIM_INFINITY, RLIM_INFINITY };
    char *big = calloc(1, 1 << 20);
    CHECK(big, "out of memory");
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && setrlimit(RLIMIT_FSIZE, &small) == 0, "limit");
    file_writer *writer;
    CHECK_OK(file_writer_open(&writer, path));
    expect_failure(file_writer_write(writer, big, 1 << 20), path, "File too large; nothing was");
    expect_failure(file_writer_write(writer, "x", 1), path, "File too large");
    expect_failure(file_writer_commit(&writer), path, "File too large; nothing was changed");
    CHECK(!writer, "a writer after commit");
    expect_content("aa");
    CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0, "limit");
    free(big);
}

static void test_bad_places(void)
{
    file_writer *writer;
    expect_failure(file_writer_open(&writer, folder), folder, "no regular file");
    CHECK(!writer, "a writer after an error");
    expect_failure(file_writer_open(&writer, "/dev/null"), "/dev/null", "no regular file");
    expect_failure(file_writer_open(&writer, "/nowhere/at/all"), "/nowhere/at/all",
                   "cannot write: No such file or directory");
}

int main(void)
{
    CHECK(mkdtemp(folder), "cannot make a folder in /tmp");
    snprintf(path, sizeof path, "%s/file", folder);
    test_replace();
    test_abandon();
    test_two_writers();
    test_full_disk();
    test_bad_places();
    CHECK(unlink(path) == 0 && rmdir(folder) == 0, "cannot clean up %s", folder);
    return 0;
}
