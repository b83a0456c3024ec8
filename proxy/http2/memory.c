/* Lists of free pieces by size: see memory.h. Each piece is preceded by its size class, so that free needs no search.
 * What is larger than the largest class goes to malloc and back. */
#include "proxy/http2/memory.h"

#include "kit/attr.h"
#include "kit/err.h"

#include <assert.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CLASSES    6
#define CLASS_MIN  64 /* bytes of class 0; each is twice the one before */
#define CLASS_NONE CLASSES

struct piece {
    alignas(max_align_t) size_t class;
    size_t size;        /* bytes behind the header */
    struct piece *next; /* while it waits; the user's bytes begin here otherwise */
};

#define HEADER offsetof(struct piece, next)

static_assert(HEADER % alignof(max_align_t) == 0, "what is handed out is aligned for any type");

static struct {
    struct piece *first;
    size_t n;
} waiting[CLASSES];

static size_t size_of(size_t class)
{
    return (size_t)CLASS_MIN << class;
}

static size_t class_for(size_t n)
{
    size_t class = 0;

    while (class < CLASSES && size_of(class) < n)
        class++;
    return class;
}

static void *take(size_t n, void *arg)
{
    size_t class = class_for(n);
    struct piece *p;

    (void)arg;
    if (LIKELY(class < CLASSES)) {
        p = waiting[class].first;
        if (LIKELY(p != NULL)) {
            waiting[class].first = p->next;
            waiting[class].n--;
            return (uint8_t *)p + HEADER;
        }
        n = size_of(class);
    }
    if (n > SIZE_MAX - sizeof(*p))
        return NULL;
    p = malloc(HEADER + (n < sizeof(p->next) ? sizeof(p->next) : n));
    if (p == NULL)
        return NULL;
    p->class = class;
    p->size = n;
    return (uint8_t *)p + HEADER;
}

static struct piece *piece_of(void *mem)
{
    return (struct piece *)(void *)((uint8_t *)mem - HEADER);
}

static void give(void *mem, void *arg)
{
    struct piece *p;

    (void)arg;
    if (mem == NULL)
        return;
    p = piece_of(mem);
    if (p->class == CLASS_NONE || waiting[p->class].n >= H2_MEMORY_KEPT / size_of(p->class)) {
        free(p);
        return;
    }
    p->next = waiting[p->class].first;
    waiting[p->class].first = p;
    waiting[p->class].n++;
}

static void *take_zeroed(size_t n, size_t size, void *arg)
{
    void *mem;

    if (size != 0 && n > SIZE_MAX / size)
        return NULL;
    mem = take(n * size, arg);
    return mem != NULL ? memset(mem, 0, n * size) : NULL;
}

static void *resize(void *mem, size_t n, void *arg)
{
    void *more;

    if (mem != NULL && n <= piece_of(mem)->size)
        return mem;
    more = take(n, arg);
    if (more == NULL || mem == NULL)
        return more;
    memcpy(more, mem, piece_of(mem)->size);
    give(mem, arg);
    return more;
}

nghttp2_mem *h2_memory(void)
{
    static nghttp2_mem memory = {NULL, take, give, take_zeroed, resize};

    return WEFT_SANITIZED ? NULL : &memory;
}

void h2_memory_release(void)
{
    for (size_t class = 0; class < CLASSES; class++) {
        struct piece *p;

        while ((p = waiting[class].first) != NULL) {
            waiting[class].first = p->next;
            free(p);
        }
        waiting[class].n = 0;
    }
}
