#include "telemetry/subs.h"

#include <stdlib.h>

void subs_done(struct subs *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->prefixes[i]);
    *s = (struct subs){0};
}

static size_t find(const struct subs *s, slice_t prefix)
{
    size_t i = 0;

    while (i < s->n && !slice_is(prefix, slice(s->prefixes[i], s->sizes[i])))
        i++;
    return i;
}

static bool add(struct subs *s, slice_t prefix)
{
    char *copy;

    if (find(s, prefix) < s->n)
        return true; /* somebody else: wants everything too */
    copy = s->n < SUBS_MAX && prefix.n <= SUBS_TEXT_MAX ? malloc(prefix.n + 1) : NULL;
    if (copy == NULL) {
        s->is_overfull = true;
        return true;
    }
    if (prefix.n > 0)
        memcpy(copy, prefix.p, prefix.n);
    copy[prefix.n] = '\0';
    s->prefixes[s->n] = copy;
    s->sizes[s->n++] = prefix.n;
    return true;
}

static void drop(struct subs *s, slice_t prefix)
{
    size_t i = find(s, prefix);

    if (i == s->n)
        return;
    free(s->prefixes[i]);
    s->n--;
    s->prefixes[i] = s->prefixes[s->n];
    s->sizes[i] = s->sizes[s->n];
    if (s->n == 0)
        s->is_overfull = false;
}

bool subs_take(struct subs *s, slice_t body)
{
    if (body.n == 0 || body.p[0] > 1)
        return false;
    if (body.p[0] == 1)
        return add(s, slice_skip(body, 1));
    drop(s, slice_skip(body, 1));
    return false;
}

bool subs_want(const struct subs *s, slice_t topic)
{
    if (s->is_overfull)
        return true;
    for (size_t i = 0; i < s->n; i++)
        if (slice_starts(topic, slice(s->prefixes[i], s->sizes[i])))
            return true;
    return false;
}
