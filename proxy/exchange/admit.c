#include "proxy/exchange/admit.h"

#include "kit/attr.h"

#include <stdlib.h>
#include <string.h>

struct cell {
    uint32_t first, further;
};

struct served {
    uint16_t port;
    uint64_t second; /* the running one */
    uint64_t told_s; /* when pressure was told last; 0 never */
    struct cell cells[ADMIT_WINDOW_S];
};

struct admit {
    struct admit_conf conf;
    size_t n;
    struct served ports[ADMIT_PORTS_MAX];
};

err_t admit_new(const struct admit_conf *conf, struct admit **out)
{
    struct admit *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return ERR_OF(NOMEM);
    a->conf = *conf;
    *out = a;
    return OK;
}

void admit_free(struct admit **a)
{
    free(*a);
    *a = NULL;
}

static struct served *find(struct admit *a, uint16_t port)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->ports[i].port == port)
            return &a->ports[i];
    if (a->n < ADMIT_PORTS_MAX)
        a->ports[a->n++].port = port;
    return &a->ports[a->n - 1];
}

static struct cell *turn(struct served *p, uint64_t second)
{
    if (second - p->second >= ADMIT_WINDOW_S)
        memset(p->cells, 0, sizeof(p->cells));
    else
        for (uint64_t s = p->second + 1; s <= second; s++)
            p->cells[s % ADMIT_WINDOW_S] = (struct cell){0};
    p->second = second;
    return &p->cells[second % ADMIT_WINDOW_S];
}

static bool has_room(const struct admit *a, const struct served *p)
{
    uint64_t first = 0, further = 0, least = ADMIT_MIN_PER_S * ADMIT_WINDOW_S / a->conf.workers;

    for (size_t i = 0; i < ADMIT_WINDOW_S; i++) {
        first += p->cells[i].first;
        further += p->cells[i].further;
    }
    return (further + 1) * 100 <= first * a->conf.percent + least * 100;
}

bool admit_take(struct admit *a, uint16_t port, unsigned number, uint64_t now_ms)
{
    struct served *p = find(a, port);
    uint64_t second = now_ms / 1000;
    struct cell *now = LIKELY(p->second == second) ? &p->cells[second % ADMIT_WINDOW_S] : turn(p, second);

    if (LIKELY(number <= 1)) {
        now->first++;
        return true;
    }
    if (a->conf.percent == 0 || has_room(a, p)) {
        now->further++;
        return true;
    }
    if (a->conf.on_pressure != NULL && (p->told_s == 0 || second - p->told_s >= ADMIT_WINDOW_S)) {
        p->told_s = second;
        a->conf.on_pressure(a->conf.arg, p->port);
    }
    return false;
}
