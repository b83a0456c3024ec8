#include "proxy/limit/limit.h"

#include "kit/log.h"
#include "proxy/limit/gcra.h"

#include <stdio.h>
#include <stdlib.h>

enum key_kind { KEY_TOTAL = 1, KEY_IDENTITY = 2, KEY_CONNECTIONS = 3 };

struct limit_override {
    uint32_t per_s;
    size_t n_clients;
    char **clients; /* owned array of owned texts: an identity, or *.suffix */
};

/* A policy in force. Never changed; replaced as a whole. */
struct limit_rate {
    uint64_t serial; /* unique for the life of the process */
    char *policy;    /* owned */
    char *place;     /* "POLICY:PORT", the first part of its keys; owned */
    uint32_t total_per_s, identity_per_s;
    uint64_t total_key;
    size_t n_overrides;
    struct limit_override *overrides; /* owned */
};

struct limits {
    struct limit_shared *shared;
    struct limit_port *ports; /* those that are limited, or referred to */
    uint64_t serial;
};

const char *limit_scope_name(enum limit_scope s)
{
    return s == LIMIT_TOTAL ? "total" : "identity";
}

/* ---- policies ---- */

static void rate_free(struct limit_rate **rp)
{
    struct limit_rate *r = *rp;

    if (r == NULL)
        return;
    for (size_t i = 0; i < r->n_overrides; i++) {
        for (size_t k = 0; k < r->overrides[i].n_clients; k++)
            free(r->overrides[i].clients[k]);
        free(r->overrides[i].clients);
    }
    free(r->overrides);
    free(r->policy);
    free(r->place);
    free(r);
    *rp = NULL;
}

static bool copy_text(slice_t text, char **out)
{
    *out = text.n > 0 ? strndup((const char *)text.p, text.n) : strdup("");
    return *out != NULL;
}

static bool copy_override(const struct wire_rate_override *from, struct limit_override *o)
{
    o->per_s = from->per_s;
    o->clients = calloc(from->n_clients + 1, sizeof(*o->clients));
    if (o->clients == NULL)
        return false;
    for (size_t i = 0; i < from->n_clients; i++) {
        if (!copy_text(from->clients[i].host, &o->clients[i]))
            return false;
        o->n_clients++;
    }
    return true;
}

static bool rate_fill(struct limits *l, struct limit_rate *r,
                      const struct wire_rate_limit *from, uint16_t port)
{
    size_t room = from->policy.n + 8;

    r->serial = ++l->serial;
    r->total_per_s = from->total_per_s;
    r->identity_per_s = from->identity_per_s;
    r->place = malloc(room);
    r->overrides = calloc(from->n_overrides + 1, sizeof(*r->overrides));
    if (r->place == NULL || r->overrides == NULL || !copy_text(from->policy, &r->policy))
        return false;
    (void)snprintf(r->place, room, "%s:%u", r->policy, port);
    r->total_key = limit_shared_key(l->shared, KEY_TOTAL, slice_str(r->place), SLICE_LIT(""));
    for (size_t i = 0; i < from->n_overrides; i++) {
        r->n_overrides++;
        if (!copy_override(&from->overrides[i], &r->overrides[i]))
            return false;
    }
    return true;
}

static err_t rate_new(struct limits *l, const struct wire_rate_limit *from, uint16_t port,
                      struct limit_rate **out)
{
    struct limit_rate *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return ERR_OF(NOMEM);
    if (!rate_fill(l, r, from, port)) {
        rate_free(&r);
        return ERR_OF(NOMEM);
    }
    *out = r;
    return OK;
}

/* ---- ports ---- */

err_t limits_new(struct limit_shared *shared, struct limits **out)
{
    struct limits *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return ERR_OF(NOMEM);
    l->shared = shared;
    *out = l;
    return OK;
}

static void port_free(struct limit_port *p)
{
    HASH_DEL(p->limits->ports, p);
    rate_free(&p->rate);
    free(p);
}

void limits_free(struct limits **lp)
{
    struct limits *l = *lp;
    struct limit_port *p, *next;

    if (l == NULL)
        return;
    HASH_ITER(hh, l->ports, p, next)
    {
        BUG_ON(p->refs > 0);
        port_free(p);
    }
    free(l);
    *lp = NULL;
}

static struct limit_port *port_make(struct limits *l, uint16_t port)
{
    struct limit_port *p;

    HASH_FIND(hh, l->ports, &port, sizeof(port), p);
    if (p != NULL)
        return p;
    p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->limits = l;
    p->port = port;
    HASH_ADD(hh, l->ports, port, sizeof(p->port), p);
    return p;
}

static bool is_idle(const struct limit_port *p)
{
    return p->refs == 0 && p->rate == NULL && p->connections_max == 0;
}

struct limit_port *limits_port(struct limits *l, uint16_t port)
{
    struct limit_port *p = port_make(l, port);

    if (p != NULL)
        p->refs++;
    return p;
}

void limit_port_drop(struct limit_port **pp)
{
    struct limit_port *p = *pp;

    if (p == NULL)
        return;
    *pp = NULL;
    BUG_ON(p->refs == 0);
    p->refs--;
    if (is_idle(p))
        port_free(p);
}

static void set_port(struct limits *l, const struct wire_served *from)
{
    bool is_limited = from->n_rate_limits > 0 || from->connections_max > 0;
    struct limit_rate *rate = NULL;
    struct limit_port *p;
    char text[8];

    HASH_FIND(hh, l->ports, &from->port, sizeof(from->port), p);
    if (p == NULL && !is_limited)
        return;
    p = port_make(l, from->port);
    if (p == NULL || (from->n_rate_limits > 0 &&
                      rate_new(l, &from->rate_limits[0], from->port, &rate) != OK)) {
        log_warn("limits of a port stay as they were", "port=%u why=NOMEM", from->port);
        return;
    }
    rate_free(&p->rate);
    p->rate = rate;
    p->connections_max = from->connections_max;
    if (p->connections_max > 0 && p->connections == NULL) {
        (void)snprintf(text, sizeof(text), "%u", from->port);
        p->connections =
            limit_shared_counter(l->shared, limit_shared_key(l->shared, KEY_CONNECTIONS,
                                                             slice_str(text), SLICE_LIT("")));
    }
}

static bool is_named(const struct wire_ports *m, uint16_t port)
{
    for (size_t i = 0; i < m->n_ports; i++)
        if (m->ports[i].port == port)
            return true;
    return false;
}

void limits_set_ports(struct limits *l, const struct wire_ports *m)
{
    struct limit_port *p, *next;

    HASH_ITER(hh, l->ports, p, next)
    {
        if (is_named(m, p->port))
            continue;
        rate_free(&p->rate);
        p->connections_max = 0;
        if (is_idle(p))
            port_free(p);
    }
    for (size_t i = 0; i < m->n_ports; i++)
        set_port(l, &m->ports[i]);
    HASH_ITER(hh, l->ports, p, next)
    if (is_idle(p))
        port_free(p);
}

/* ---- requests ---- */

static bool is_client(const char *pattern, slice_t identity)
{
    if (pattern[0] == '*' && pattern[1] == '.')
        return slice_ends(identity, slice_str(pattern + 1));
    return slice_is_str(identity, pattern);
}

static uint32_t own_rate(const struct limit_rate *r, slice_t identity)
{
    if (identity.n > 0)
        for (size_t i = 0; i < r->n_overrides; i++)
            for (size_t k = 0; k < r->overrides[i].n_clients; k++)
                if (is_client(r->overrides[i].clients[k], identity))
                    return r->overrides[i].per_s;
    return r->identity_per_s;
}

/* Once per connection and version of the policy. */
static void look_up(const struct limits *l, const struct limit_rate *r, slice_t identity,
                    struct limit_client *c)
{
    c->serial = r->serial;
    c->per_s = own_rate(r, identity);
    c->interval_ns = c->per_s > 0 ? gcra_interval(c->per_s) : 0;
    c->key = limit_shared_key(l->shared, KEY_IDENTITY, slice_str(r->place), identity);
}

static bool refuse(const struct limit_rate *r, enum limit_scope scope, uint32_t per_s,
                   uint64_t wait_ns, struct limit_refusal *why)
{
    why->policy = slice_str(r->policy);
    why->scope = scope;
    why->per_s = per_s;
    why->retry_after_s = (uint32_t)((wait_ns + GCRA_SECOND - 1) / GCRA_SECOND);
    if (why->retry_after_s == 0)
        why->retry_after_s = 1;
    return false;
}

bool limit_admit(struct limit_port *p, struct limit_client *c, slice_t identity,
                 uint64_t now_ns, struct limit_refusal *why)
{
    const struct limit_rate *r = p->rate;
    struct limit_shared *s = p->limits->shared;
    uint64_t wait = 0, total_interval = r->total_per_s > 0 ? gcra_interval(r->total_per_s) : 0;

    if (c->serial != r->serial)
        look_up(p->limits, r, identity, c);
    if (r->total_per_s > 0 && !gcra_would_take(limit_shared_cell(s, r->total_key, now_ns),
                                               total_interval, now_ns, &wait))
        return refuse(r, LIMIT_TOTAL, r->total_per_s, wait, why);
    if (c->per_s > 0 &&
        !gcra_take(limit_shared_cell(s, c->key, now_ns), c->interval_ns, now_ns, &wait))
        return refuse(r, LIMIT_IDENTITY, c->per_s, wait, why);
    /* Another worker may have taken the last of the total meanwhile. */
    if (r->total_per_s > 0 &&
        !gcra_take(limit_shared_cell(s, r->total_key, now_ns), total_interval, now_ns, &wait))
        return refuse(r, LIMIT_TOTAL, r->total_per_s, wait, why);
    return true;
}
