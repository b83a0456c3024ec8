/* A ring of seconds per service, in a hash by name and a list by last use. */
#include "retry/budget.h"

#include "kit/hash.h"
#include "kit/list.h"

#include <stdlib.h>

#define CELLS (BUDGET_TTL_MAX_S + 1u) /* the running second and the whole ones before it */

struct cell {
    uint32_t requests, retries;
};

struct budget {
    UT_hash_handle hh;
    struct list by_use; /* in budgets.by_use, the longest unused first */
    uint64_t held_until; /* ms */
    uint64_t second;    /* the running one; cells of later seconds are zero */
    struct cell cells[CELLS];
    size_t name_n;
    char name[];
};

struct budgets {
    struct budget *by_name;
    struct list by_use;
    size_t max;
};

err_t budgets_new(size_t max, struct budgets **out)
{
    struct budgets *b = calloc(1, sizeof(*b));

    BUG_ON(max == 0);
    if (b == NULL)
        return ERR_OF(NOMEM);
    list_init(&b->by_use);
    b->max = max;
    *out = b;
    return OK;
}

static void budget_forget(struct budgets *b, struct budget *one)
{
    HASH_DEL(b->by_name, one);
    list_del(&one->by_use);
    free(one);
}

void budgets_free(struct budgets **b)
{
    if (*b == NULL)
        return;
    while (!list_is_empty(&(*b)->by_use))
        budget_forget(*b, CONTAINER_OF((*b)->by_use.next, struct budget, by_use));
    free(*b);
    *b = NULL;
}

size_t budgets_count(const struct budgets *b)
{
    return HASH_COUNT(b->by_name);
}

/* Empties the cells of the seconds that have passed since the budget was last looked at. */
static void budget_turn(struct budget *one, uint64_t now_ms)
{
    uint64_t second = now_ms / 1000;

    if (second <= one->second)
        return;
    if (second - one->second >= CELLS)
        memset(one->cells, 0, sizeof(one->cells));
    else
        for (uint64_t s = one->second + 1; s <= second; s++)
            one->cells[s % CELLS] = (struct cell){0};
    one->second = second;
}

/* The service's budget, at the current second. NULL: no memory, or an impossible name. */
static struct budget *budget_get(struct budgets *b, slice_t service, uint64_t now_ms)
{
    struct budget *one = NULL;

    if (service.n == 0 || service.n > BUDGET_NAME_MAX)
        return NULL;
    HASH_FIND(hh, b->by_name, service.p, service.n, one);
    if (one == NULL) {
        if (budgets_count(b) >= b->max)
            budget_forget(b, CONTAINER_OF(b->by_use.next, struct budget, by_use));
        one = calloc(1, sizeof(*one) + service.n);
        if (one == NULL)
            return NULL;
        list_init(&one->by_use);
        one->second = now_ms / 1000;
        one->name_n = service.n;
        memcpy(one->name, service.p, service.n);
        HASH_ADD_KEYPTR(hh, b->by_name, one->name, one->name_n, one);
    }
    list_del(&one->by_use);
    list_push(&b->by_use, &one->by_use);
    budget_turn(one, now_ms);
    return one;
}

static void count_up(uint32_t *n, uint32_t by)
{
    *n = *n > UINT32_MAX - by ? UINT32_MAX : *n + by;
}

void budgets_feed(struct budgets *b, slice_t service, uint64_t now_ms, uint32_t requests)
{
    struct budget *one = budget_get(b, service, now_ms);

    if (one != NULL)
        count_up(&one->cells[one->second % CELLS].requests, requests);
}

void budgets_hold(struct budgets *b, slice_t service, uint64_t now_ms, uint32_t ms)
{
    struct budget *one = budget_get(b, service, now_ms);
    uint64_t until = now_ms + (ms < BUDGET_HOLD_MAX_MS ? ms : BUDGET_HOLD_MAX_MS);

    if (one != NULL && until > one->held_until)
        one->held_until = until;
}

bool budgets_is_held(struct budgets *b, slice_t service, uint64_t now_ms)
{
    const struct budget *one = NULL;

    HASH_FIND(hh, b->by_name, service.p, service.n, one);
    return one != NULL && now_ms < one->held_until;
}

bool budgets_take(struct budgets *b, slice_t service, uint64_t now_ms,
                  const struct budget_terms *terms)
{
    struct budget *one = budget_get(b, service, now_ms);
    uint64_t window_s = ((uint64_t)terms->ttl_ms + 999) / 1000;
    uint64_t requests = 0, retries = 0, allowed_milli;

    if (one == NULL)
        return false;
    window_s = window_s == 0 ? 1 : window_s > BUDGET_TTL_MAX_S ? BUDGET_TTL_MAX_S : window_s;
    for (uint64_t k = 0; k < window_s && k <= one->second; k++) {
        const struct cell *c = &one->cells[(one->second - k) % CELLS];

        requests += c->requests;
        retries += c->retries;
    }
    allowed_milli = requests * terms->permille + window_s * terms->min_per_s * 1000;
    if ((retries + 1) * 1000 > allowed_milli)
        return false;
    count_up(&one->cells[one->second % CELLS].retries, 1);
    return true;
}
