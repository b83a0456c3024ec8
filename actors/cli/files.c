/* Small files: read bounded, written beside and renamed, trees removed by descriptor. */
#include "cli/files.h"

#include "kit/random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE_DEPTH_MAX   16
#define TREE_ENTRIES_MAX 100000

bool files_path(char path[FILES_PATH_MAX], const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(path, FILES_PATH_MAX, fmt, ap);
    va_end(ap);
    if (n < 0 || n >= FILES_PATH_MAX)
        path[0] = '\0';
    return path[0] != '\0';
}

err_t files_read(const char *path, size_t max, struct buf *into, struct trouble *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    err_t e = OK;

    if (fd < 0)
        return trouble_errno(why, "%s", path);
    for (size_t total = 0;;) {
        char chunk[8192];
        ssize_t n = read(fd, chunk, sizeof chunk);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            e = trouble_errno(why, "%s", path);
        else if ((total += (size_t)n) > max)
            e = trouble_set(why, ERR_OF(TOO_BIG), "%s is larger than %zu bytes", path, max);
        else if (n > 0)
            e = buf_add(into, chunk, (size_t)n);
        if (n <= 0 || e != OK)
            break;
    }
    close(fd);
    return e;
}

static bool files_write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, p, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

err_t files_write(const char *path, const void *p, size_t n, mode_t mode, uid_t uid,
                  struct trouble *why)
{
    char beside[FILES_PATH_MAX];
    char tag[9];
    bool good;
    int fd;

    random_hex(tag, 8);
    if (!files_path(beside, "%s.%s", path, tag))
        return trouble_set(why, ERR_OF(TOO_BIG), "%s: the path is too long", path);
    fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return trouble_errno(why, "%s", beside);
    good = (uid == (uid_t)-1 || fchown(fd, uid, uid) == 0) && fchmod(fd, mode) == 0 &&
           files_write_all(fd, p, n);
    if (close(fd) != 0)
        good = false;
    if (!good || rename(beside, path) != 0) {
        err_t e = trouble_errno(why, "%s", path);

        (void)unlink(beside); /* the first error is the one to tell */
        return e;
    }
    return OK;
}

err_t files_mkdir(const char *path, mode_t mode, uid_t uid, struct trouble *why)
{
    char part[FILES_PATH_MAX];
    struct stat st;

    if (!files_path(part, "%s", path))
        return trouble_set(why, ERR_OF(TOO_BIG), "%s: the path is too long", path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return trouble_errno(why, "%s", part);
        *slash = '/';
    }
    if (mkdir(path, mode) != 0 && errno != EEXIST)
        return trouble_errno(why, "%s", path);
    if (lstat(path, &st) != 0)
        return trouble_errno(why, "%s", path);
    if (!S_ISDIR(st.st_mode))
        return trouble_set(why, ERR_OF(OS), "%s is no directory", path);
    if (chmod(path, mode) != 0 || (uid != (uid_t)-1 && lchown(path, uid, uid) != 0))
        return trouble_errno(why, "%s", path);
    return OK;
}

/* Empties the directory behind `fd`, which is closed. An explicit stack instead of recursion:
 * the depth is chosen by whoever filled the directory. */
static bool files_empty(int fd, dev_t dev)
{
    struct {
        DIR *dir;
        char name[NAME_MAX + 1];
    } at[TREE_DEPTH_MAX];
    unsigned depth = 0, seen = 0;
    bool good = true;

    at[0].name[0] = '\0';
    at[0].dir = fdopendir(fd);
    if (at[0].dir == NULL) {
        close(fd);
        return false;
    }
    for (;;) {
        struct dirent *d = readdir(at[depth].dir);
        struct stat st;
        int here;

        if (d == NULL) {
            closedir(at[depth].dir);
            if (depth == 0)
                return good;
            depth--;
            if (unlinkat(dirfd(at[depth].dir), at[depth + 1].name, AT_REMOVEDIR) != 0)
                good = false;
            continue;
        }
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        here = dirfd(at[depth].dir);
        if (++seen > TREE_ENTRIES_MAX ||
            fstatat(here, d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            good = false;
            if (seen > TREE_ENTRIES_MAX) { /* give up: unwind */
                for (;; depth--) {
                    closedir(at[depth].dir);
                    if (depth == 0)
                        return false;
                }
            }
            continue;
        }
        if (!S_ISDIR(st.st_mode)) {
            if (unlinkat(here, d->d_name, 0) != 0)
                good = false;
            continue;
        }
        if (st.st_dev != dev || depth + 1 == TREE_DEPTH_MAX) {
            good = false; /* something is mounted there, or it is too deep: not ours */
            continue;
        }
        fd = openat(here, d->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        at[depth + 1].dir = fd >= 0 ? fdopendir(fd) : NULL;
        if (at[depth + 1].dir == NULL) {
            if (fd >= 0)
                close(fd);
            good = false;
            continue;
        }
        depth++;
        memcpy(at[depth].name, d->d_name, strlen(d->d_name) + 1);
    }
}

err_t files_remove_tree(const char *path, struct trouble *why)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0 && errno == ENOENT)
        return OK;
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return unlink(path) == 0 ? OK : trouble_errno(why, "%s", path);
    if (fd < 0)
        return trouble_errno(why, "%s", path);
    if (fstat(fd, &st) != 0) {
        close(fd);
        return trouble_errno(why, "%s", path);
    }
    if (!files_empty(fd, st.st_dev) || rmdir(path) != 0)
        return trouble_errno(why, "%s cannot be removed whole", path);
    return OK;
}

bool files_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

bool files_is_empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    bool is_empty = true;

    if (dir == NULL)
        return errno == ENOENT;
    for (struct dirent *d = readdir(dir); d != NULL && is_empty; d = readdir(dir))
        is_empty = strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0;
    closedir(dir);
    return is_empty;
}
