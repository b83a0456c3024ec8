/* Small files and directories, written so that a crash leaves the old or the new one, and
 * removed so that nothing but what Weft made is touched. */
#ifndef CLI_FILES_H
#define CLI_FILES_H

#include "cli/trouble.h"
#include "kit/buf.h"

#include <stdbool.h>
#include <sys/types.h>

#define FILES_PATH_MAX 512

/* printf into path[FILES_PATH_MAX]. False if it does not fit; path is then "", which no call
 * accepts, so the result need not be looked at where the next call reports. */
bool files_path(char path[FILES_PATH_MAX], const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Appends the whole file (at most `max` bytes) to `into`. Follows no symbolic link in the last
 * part. */
MUST_USE err_t files_read(const char *path, size_t max, struct buf *into, struct trouble *why);

/* Writes beside it and renames. Owner and mode are set before the name appears; uid (uid_t)-1
 * leaves the owner. Never follows a symbolic link in the last part. */
MUST_USE err_t files_write(const char *path, const void *p, size_t n, mode_t mode, uid_t uid,
                           struct trouble *why);

/* Makes the directory (parents too, 0755) with this owner and mode; one that exists already
 * gets them. */
MUST_USE err_t files_mkdir(const char *path, mode_t mode, uid_t uid, struct trouble *why);

/* Removes a tree without leaving its file system and without following links; at most 16 levels
 * and 100,000 entries. A path that does not exist is fine. */
MUST_USE err_t files_remove_tree(const char *path, struct trouble *why);

bool files_exists(const char *path);

/* True if the directory does not exist or holds nothing. */
bool files_is_empty_dir(const char *path);

#endif
