// SPDX-License-Identifier: MIT
// Files: one mapped for reading, one replaced whole or not at all.
// Paths are UTF-8 on every system. Every error names the file.
#ifndef KIM_FILE_H
#define KIM_FILE_H

#include "base.h"

typedef enum file_kind {
    FILE_ABSENT, // or not to be looked at
    FILE_FOLDER,
    FILE_OTHER, // a regular file, or what cannot be mapped
} file_kind;

// What the path leads to.
file_kind file_find(const char *path);

// "folder/name", to be freed; NULL: out of memory.
char *file_in_folder(const char *folder, const char *name);

// A whole file in memory, read-only. Whoever cuts the file short while it is mapped makes later
// reads of what is gone fail with a signal; the systems offer no cheap way around that.
typedef struct file_mapping {
    const uint8_t *data; // [size], at the start of a page
    uint64_t size;       // never 0 for an open one
} file_mapping;

// An absent file, a folder, an empty file, and one that may not be read are KIM_ERR_FILE.
// out: zero on failure
kim_err file_map(file_mapping *out, const char *path);

// Accepts a zero one, and leaves it zero.
void file_unmap(file_mapping *mapping);

// Tells the system that these bytes are not needed any more, which frees the memory they take.
// They stay readable, from the disk again. Safe while others read the mapping.
void file_release(const file_mapping *mapping, uint64_t offset, uint64_t length);

// Writes a new file under a temporary name in the same folder. A file that is already at `path`
// stays whole, and is what one finds there, until commit has put the new one in its place.
typedef struct file_writer file_writer;

// Refuses a path that is there and is no regular file.
kim_err file_writer_open(file_writer **out, const char *path);

// After a failure only abandon makes sense; commit then fails too.
kim_err file_writer_write(file_writer *writer, const void *data, size_t size);

// Brings the bytes to the disk, then renames. Ends the writer, also on failure.
kim_err file_writer_commit(file_writer **writer);

// Removes the temporary file. Accepts NULL inside.
void file_writer_abandon(file_writer **writer);

#endif
