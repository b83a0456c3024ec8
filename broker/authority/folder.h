/* The authority's directory: small files, 0600, replaced whole.
 *
 * A file is written beside its place (NAME.new), synced and renamed, so that a reader finds the
 * old or the new one. Everything is looked at before it is believed: a directory or file that
 * others can read or write, that is not ours, or that is a link, is refused with its name, its
 * mode and what to do.
 */
#ifndef BROKER_AUTHORITY_FOLDER_H
#define BROKER_AUTHORITY_FOLDER_H

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>

#define FOLDER_FILE_MAX (4 * 1024 * 1024)

struct folder {
    char path[512];
    int fd;
};

/* Makes the directory (0700) if it is not there. FILE_MODE | OS. */
MUST_USE err_t folder_open(const char *path, struct folder *out);
void folder_close(struct folder *f);
const char *folder_path(const struct folder *f);

/* Appends the file's bytes. *is_there tells whether there is one. FILE_MODE | FILE_BROKEN (too
 * big) | OS. */
MUST_USE err_t folder_read(const struct folder *f, const char *name, struct buf *out,
                           bool *is_there);
MUST_USE err_t folder_write(const struct folder *f, const char *name, slice_t bytes);
/* Moves a file that is of no use aside, to NAME.bad. */
MUST_USE err_t folder_put_aside(const struct folder *f, const char *name);

#endif
