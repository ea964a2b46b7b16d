// SPDX-License-Identifier: MIT
// Files on POSIX and Windows.
#include "file.h"

#include "error.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#    define WIN32_LEAN_AND_MEAN
#    include <fcntl.h>
#    include <io.h>
#    include <process.h>
#    include <sys/stat.h>
#    include <windows.h>
#else
#    include <fcntl.h>
#    include <sys/mman.h>
#    include <sys/stat.h>
#    include <unistd.h>
#endif

struct file_writer {
    FILE *file;
    char *path;
    char *temporary;
    int error; // errno of the first failure
};

// ----------------------------------------------------------------------------- the two systems

#ifdef _WIN32

// NULL: no memory, or not UTF-8. Freed by the caller.
static wchar_t *wide_path(const char *path)
{
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    wchar_t *wide = n > 0 ? malloc((size_t)n * sizeof *wide) : NULL;
    if (wide)
        MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, n);
    return wide;
}

// The text of GetLastError(), without the newline it ends with.
static const char *system_error(char text[256])
{
    DWORD n = FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL,
                             GetLastError(), 0, text, 256, NULL);
    while (n > 0 && strchr("\r\n .", text[n - 1]))
        n--;
    text[n] = 0;
    return n ? text : "unknown error";
}

kim_err file_map(file_mapping *out, const char *path)
{
    kim_err err = KIM_OK;
    char text[256];
    HANDLE file = INVALID_HANDLE_VALUE, mapping = NULL;
    LARGE_INTEGER size;
    *out = (file_mapping){ 0 };

    wchar_t *wide = wide_path(path);
    if (!wide)
        FAIL(KIM_ERR_FILE, "%s: cannot open: the path is not valid UTF-8", path);
    DWORD attributes = GetFileAttributesW(wide);
    if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY))
        FAIL(KIM_ERR_FILE, "%s: is a folder, expected a file", path);
    file = CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING,
                       FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE || !GetFileSizeEx(file, &size))
        FAIL(KIM_ERR_FILE, "%s: cannot open: %s", path, system_error(text));
    if (size.QuadPart == 0)
        FAIL(KIM_ERR_FILE, "%s: the file is empty", path);
    if ((uint64_t)size.QuadPart > SIZE_MAX)
        FAIL(KIM_ERR_FILE, "%s: the file is too large for this system's addresses", path);
    mapping = CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
    const void *data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (!data)
        FAIL(KIM_ERR_FILE, "%s: cannot map into memory: %s", path, system_error(text));
    *out = (file_mapping){ data, (uint64_t)size.QuadPart };
error: // the view keeps what it needs
    if (mapping)
        CloseHandle(mapping);
    if (file != INVALID_HANDLE_VALUE)
        CloseHandle(file);
    free(wide);
    return err;
}

void file_unmap(file_mapping *mapping)
{
    if (mapping->data)
        UnmapViewOfFile(mapping->data);
    *mapping = (file_mapping){ 0 };
}

// Windows takes the pages of a mapped file back by itself, oldest first.
void file_release(const file_mapping *mapping, uint64_t offset, uint64_t length)
{
    (void)mapping, (void)offset, (void)length;
}

static int process_id(void)
{
    return _getpid();
}

// NULL and errno; EEXIST: the name is taken.
static FILE *create_new(const char *path)
{
    wchar_t *wide = wide_path(path);
    int fd = -1;
    if (wide)
        fd = _wopen(wide, _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY | _O_NOINHERIT,
                    _S_IREAD | _S_IWRITE);
    else
        errno = EINVAL;
    free(wide);
    FILE *file = fd >= 0 ? _fdopen(fd, "wb") : NULL;
    if (fd >= 0 && !file)
        _close(fd);
    return file;
}

file_kind file_find(const char *path)
{
    wchar_t *wide = wide_path(path);
    DWORD attributes = wide ? GetFileAttributesW(wide) : INVALID_FILE_ATTRIBUTES;
    free(wide);
    return attributes == INVALID_FILE_ATTRIBUTES   ? FILE_ABSENT
           : attributes & FILE_ATTRIBUTE_DIRECTORY ? FILE_FOLDER
                                                   : FILE_OTHER;
}

static bool is_special(const char *path)
{
    wchar_t *wide = wide_path(path);
    DWORD attributes = wide ? GetFileAttributesW(wide) : INVALID_FILE_ATTRIBUTES;
    free(wide);
    return attributes != INVALID_FILE_ATTRIBUTES &&
           (attributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_DEVICE));
}

static void keep_permissions(FILE *file, const char *path)
{
    (void)file, (void)path; // those of the folder are inherited
}

static bool sync_to_disk(FILE *file)
{
    return _commit(_fileno(file)) == 0;
}

static void remove_file(const char *path)
{
    wchar_t *wide = wide_path(path);
    if (wide)
        DeleteFileW(wide);
    free(wide);
}

static bool replace_file(const char *from, const char *to)
{
    wchar_t *wide_from = wide_path(from), *wide_to = wide_path(to);
    bool ok = wide_from && wide_to &&
              MoveFileExW(wide_from, wide_to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH);
    free(wide_from);
    free(wide_to);
    if (!ok)
        errno = EACCES;
    return ok;
}

#else

kim_err file_map(file_mapping *out, const char *path)
{
    kim_err err = KIM_OK;
    struct stat info;
    *out = (file_mapping){ 0 };

    // non-blocking: opening a pipe must not wait for its writer
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) != 0)
        FAIL(KIM_ERR_FILE, "%s: cannot open: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        FAIL(KIM_ERR_FILE, "%s: is a folder, expected a file", path);
    if (!S_ISREG(info.st_mode))
        FAIL(KIM_ERR_FILE, "%s: is a device or a pipe, expected a file", path);
    if (info.st_size == 0)
        FAIL(KIM_ERR_FILE, "%s: the file is empty", path);
    if ((uint64_t)info.st_size > SIZE_MAX)
        FAIL(KIM_ERR_FILE, "%s: the file is too large for this system's addresses", path);
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        FAIL(KIM_ERR_FILE, "%s: cannot map into memory: %s", path, strerror(errno));
    *out = (file_mapping){ data, (uint64_t)info.st_size };
error:
    if (fd >= 0)
        close(fd);
    return err;
}

void file_unmap(file_mapping *mapping)
{
    if (mapping->data)
        munmap((void *)mapping->data, (size_t)mapping->size);
    *mapping = (file_mapping){ 0 };
}

void file_release(const file_mapping *mapping, uint64_t offset, uint64_t length)
{
    if (offset >= mapping->size || length == 0)
        return;
    if (length > mapping->size - offset)
        length = mapping->size - offset;
    // outwards to whole pages: a neighbour's bytes on them are read again if they are needed
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t begin = offset / page * page;
    madvise((void *)(mapping->data + begin), (size_t)(offset + length - begin), MADV_DONTNEED);
}

static int process_id(void)
{
    return (int)getpid();
}

static FILE *create_new(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    FILE *file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (fd >= 0 && !file)
        close(fd);
    return file;
}

file_kind file_find(const char *path)
{
    struct stat info;
    return stat(path, &info) != 0 ? FILE_ABSENT : S_ISDIR(info.st_mode) ? FILE_FOLDER : FILE_OTHER;
}

static bool is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

// A file that only its owner may read stays so.
static void keep_permissions(FILE *file, const char *path)
{
    struct stat info;
    if (stat(path, &info) == 0 && fchmod(fileno(file), info.st_mode & 0777) != 0)
        errno = 0; // then it has those of any new file
}

static bool sync_to_disk(FILE *file)
{
    return fsync(fileno(file)) == 0;
}

static void remove_file(const char *path)
{
    unlink(path);
}

static bool replace_file(const char *from, const char *to)
{
    return rename(from, to) == 0;
}

#endif

char *file_in_folder(const char *folder, const char *name)
{
    const size_t length = strlen(folder), room = length + strlen(name) + 2;
    const bool slash = length > 0 && folder[length - 1] != '/';
    char *path = malloc(room);
    if (path)
        snprintf(path, room, "%s%s%s", folder, slash ? "/" : "", name);
    return path;
}

// ------------------------------------------------------------------------------------- writer

kim_err file_writer_open(file_writer **out, const char *path)
{
    static atomic_uint count; // two writers of one process never share a name
    kim_err err = KIM_OK;
    *out = NULL;
    size_t length = strlen(path), room = length + 48;
    file_writer *writer = calloc(1, sizeof *writer);
    REQUIRE_MEMORY(writer);
    writer->path = malloc(length + 1);
    REQUIRE_MEMORY(writer->path);
    memcpy(writer->path, path, length + 1);
    if (is_special(path))
        FAIL(KIM_ERR_FILE, "%s: cannot write: what is there is no regular file", path);

    char *name = malloc(room);
    REQUIRE_MEMORY(name);
    do {
        unsigned serial = atomic_fetch_add(&count, 1);
        snprintf(name, room, "%s.%d.%u.part", path, process_id(), serial);
        writer->file = create_new(name);
    } while (!writer->file && errno == EEXIST); // left behind by a process that was killed
    if (!writer->file) {
        err = kim_fail(KIM_ERR_FILE, "%s: cannot write: %s", path, strerror(errno));
        free(name);
        goto error;
    }
    keep_permissions(writer->file, path);
    writer->temporary = name;
    *out = writer;
    return KIM_OK;
error:
    file_writer_abandon(&writer);
    return err;
}

static kim_err write_error(file_writer *writer)
{
    if (!writer->error)
        writer->error = errno ? errno : EIO;
    return kim_fail(KIM_ERR_FILE, "%s: cannot write: %s; nothing was changed", writer->path,
                    strerror(writer->error));
}

kim_err file_writer_write(file_writer *writer, const void *data, size_t size)
{
    errno = 0;
    if (writer->error || (size > 0 && fwrite(data, 1, size, writer->file) != size))
        return write_error(writer);
    return KIM_OK;
}

kim_err file_writer_commit(file_writer **writer)
{
    file_writer *w = *writer;
    kim_err err = KIM_OK;
    errno = 0;
    if (w->error || fflush(w->file) != 0 || !sync_to_disk(w->file))
        err = write_error(w);
    if (fclose(w->file) != 0 && !err)
        err = write_error(w);
    w->file = NULL;
    if (!err && !replace_file(w->temporary, w->path))
        err = write_error(w);
    if (!err) { // the name is gone: nothing to remove
        free(w->temporary);
        w->temporary = NULL;
    }
    file_writer_abandon(writer);
    return err;
}

void file_writer_abandon(file_writer **writer)
{
    file_writer *w = *writer;
    if (!w)
        return;
    if (w->file)
        fclose(w->file);
    if (w->temporary)
        remove_file(w->temporary);
    free(w->temporary);
    free(w->path);
    free(w);
    *writer = NULL;
}
