/* Intrusive doubly linked list. A node is in at most one list; list_del leaves it linked to itself, so
 * that it may be deleted twice. */
#ifndef KIT_LIST_H
#define KIT_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

#define LIST_INIT(l) {&(l), &(l)}
#define CONTAINER_OF(ptr, type, member)                                                            \
    ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define LIST_EACH(it, l) for (struct list *it = (l)->next; it != (l); it = it->next)
#define LIST_EACH_SAFE(it, l)                                                                      \
    for (struct list *it = (l)->next, *it##_next = it->next; it != (l);                            \
         it = it##_next, it##_next = it->next)

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_is_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_add_after(struct list *at, struct list *node)
{
    node->prev = at;
    node->next = at->next;
    at->next->prev = node;
    at->next = node;
}

static inline void list_push(struct list *l, struct list *node) /* at the end */
{
    list_add_after(l->prev, node);
}

static inline void list_push_front(struct list *l, struct list *node)
{
    list_add_after(l, node);
}

static inline void list_del(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = node;
}

static inline struct list *list_pop(struct list *l) /* the first, or NULL */
{
    struct list *n = l->next;

    if (n == l)
        return NULL;
    list_del(n);
    return n;
}

#endif
