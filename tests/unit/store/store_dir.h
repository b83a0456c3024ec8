/* A fresh state directory for a test, removed with what is in it. */
#ifndef TEST_STORE_DIR_H
#define TEST_STORE_DIR_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline char *store_dir_make(char out[64])
{
    (void)snprintf(out, 64, "/tmp/weft-store-XXXXXX");
    if (mkdtemp(out) == NULL)
        abort();
    return out;
}

static inline void store_dir_clear(const char *dir)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[1024];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >= (int)sizeof path)
            continue;
        if (unlink(path) != 0)
            store_dir_clear(path);
    }
    (void)closedir(d);
    (void)rmdir(dir);
}

/* How many names in dir begin with prefix. */
static inline int store_dir_count(const char *dir, const char *prefix)
{
    int n = 0;
    DIR *d = opendir(dir);
    if (d == NULL)
        return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    (void)closedir(d);
    return n;
}

#endif
