/* weft-wire-doc: prints docs/messages.md, or writes fuzz seeds.
 *
 *     weft-wire-doc                  the page, to stdout
 *     weft-wire-doc --seeds DIR      one file per message and shape into DIR (which must exist)
 */
#include "wire/document.h"
#include "wire/sample.h"

#include <inttypes.h>
#include <stdio.h>

static const struct shape {
    const char *name;
    struct wire_sample_how how;
} shapes[] = {
    {"empty", {.seed = 1, .list_max = 0, .text_max = 0, .is_full = true}},
    {"small", {.seed = 2, .list_max = 2, .text_max = 16, .is_full = false}},
    {"large", {.seed = 3, .list_max = 2, .text_max = 40, .is_full = true}},
};

static int say(const char *what, err_t why)
{
    (void)fprintf(stderr, "weft-wire-doc: %s: %s\n", what,
                  why != OK ? why->text : "cannot be written");
    return 1;
}

static int write_file(const char *path, slice_t bytes)
{
    FILE *f = fopen(path, "wb");

    if (f == NULL)
        return say(path, OK);
    if (fwrite(bytes.p, 1, bytes.n, f) != bytes.n) {
        (void)fclose(f); /* the write has failed already */
        return say(path, OK);
    }
    return fclose(f) == 0 ? 0 : say(path, OK);
}

static int write_seed(const char *dir, const struct wire_desc *d, const struct shape *shape)
{
    AUTO(buf_done) struct buf bytes;
    AUTO(arena_done) struct arena arena;
    union wire_body body;
    char path[4096];
    err_t why;

    memset(&body, 0, sizeof(body));
    buf_init(&bytes, 0);
    arena_init(&arena, 0);
    (void)snprintf(path, sizeof(path), "%s/%s-%s", dir, d->record->name, shape->name);
    why = wire_sample(d, &shape->how, &arena, &body);
    if (why == OK)
        why = wire_encode(d->code, &body, &bytes);
    return why != OK ? say(path, why) : write_file(path, buf_slice(&bytes));
}

static int write_seeds(const char *dir)
{
    size_t n;
    const struct wire_desc *descs = wire_descs(&n);

    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < sizeof(shapes) / sizeof(shapes[0]); j++)
            if (write_seed(dir, &descs[i], &shapes[j]) != 0)
                return 1;
    (void)fprintf(stderr, "%zu messages, %zu seeds each\n", n,
                  sizeof(shapes) / sizeof(shapes[0]));
    return 0;
}

static int print_page(void)
{
    AUTO(buf_done) struct buf page;
    slice_t s;
    err_t why;

    buf_init(&page, 0);
    why = wire_document(&page);
    if (why != OK)
        return say("the page", why);
    s = buf_slice(&page);
    return fwrite(s.p, 1, s.n, stdout) == s.n && fflush(stdout) == 0 ? 0 : say("stdout", OK);
}

int main(int argc, char **argv)
{
    if (argc == 1)
        return print_page();
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
        return write_seeds(argv[2]);
    (void)fputs("usage: weft-wire-doc [--seeds DIR]\n", stderr);
    return 64;
}
