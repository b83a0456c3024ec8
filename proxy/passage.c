#include "proxy/passage.h"

#include "kit/random.h"
#include "model/code.h"
#include "model/route.h"
#include "proxy/balance/balance.h"
#include "proxy/discover/discover.h"

#include <stdlib.h>

/* ---- where to ---- */

static void refuse(struct passage *p, enum code code, enum close_reason why)
{
    p->backend = NULL;
    p->code = code_info(code)->id;
    p->why = why;
}

/* A backend that has somebody ready, or one whose absence is to be told: as for requests. */
static bool may_use(void *arg, uint16_t i)
{
    const struct destination *d = arg;

    return i < d->n_backends && (d->backends[i]->is_missing || backend_has_ready(d->backends[i]));
}

static void pass_by_rule(const struct destination *d, const struct wire_rule *rule, struct passage *p)
{
    uint64_t random = (uint64_t)random_below(UINT32_MAX) << 32 | random_below(UINT32_MAX);
    const struct wire_weighted *share = route_pick(rule, random, may_use, (void *)(uintptr_t)d);

    p->rule = rule;
    if (share == NULL)
        share = route_pick(rule, random, NULL, NULL); /* nobody is ready: one of them is waited for */
    if (share == NULL || share->backend >= d->n_backends)
        refuse(p, CODE_NO_BACKENDS, CLOSE_NO_ROUTE);
    else if (d->backends[share->backend]->is_missing)
        refuse(p, CODE_BACKEND_MISSING, CLOSE_NO_ROUTE);
    else
        p->backend = d->backends[share->backend];
}

static void pass_to_service(const struct destination *d, struct passage *p)
{
    if (d->n_backends == 0)
        refuse(p, CODE_NO_ENDPOINT, CLOSE_CONNECT_FAILED);
    else
        p->backend = d->backends[0];
}

void passage_tls(const struct destination *d, slice_t sni, struct passage *out)
{
    struct route_found found;

    *out = (struct passage){0};
    if (d->view->n_tls_rules == 0)
        pass_to_service(d, out);
    else if (route_match_sni(d->routes, sni, &found))
        pass_by_rule(d, found.rule, out);
    else
        refuse(out, CODE_NO_TLS_ROUTE, CLOSE_NO_ROUTE);
}

void passage_bytes(const struct destination *d, struct passage *out)
{
    *out = (struct passage){0};
    if (d->view->n_tcp_rules == 0)
        pass_to_service(d, out);
    else
        pass_by_rule(d, &d->view->tcp_rules[0], out);
}

/* ---- names in metrics ---- */

struct names {
    unsigned n;
    uint8_t sizes[NAMES_MAX];
    char text[NAMES_MAX][254];
};

err_t names_new(struct names **out)
{
    *out = calloc(1, sizeof(**out));
    return *out != NULL ? OK : ERR_OF(NOMEM);
}

void names_free(struct names **n)
{
    free(*n);
    *n = NULL;
}

/* The host of the rule that the name fits best. */
static slice_t host_of_rule(const struct wire_rule *rule, slice_t sni)
{
    slice_t best = SLICE_LIT("");

    for (size_t i = 0; i < rule->n_hosts; i++) {
        slice_t host = rule->hosts[i].host;

        if (slice_is_nocase(host, sni))
            return host;
        if (host.n > 2 && host.p[0] == '*' && host.n > best.n && sni.n > host.n - 1 &&
            slice_is_nocase(slice_skip(host, 1), slice_skip(sni, sni.n - (host.n - 1))))
            best = host;
    }
    return best;
}

/* NAME, NAME.NS, NAME.NS.svc and so on of the service that was meant. */
static bool names_service(const struct wire_destination *v, slice_t sni)
{
    slice_t rest = sni;

    if (v->kind != DESTINATION_SERVICE || v->name.n == 0 || !slice_starts(sni, v->name))
        return false;
    rest = slice_skip(rest, v->name.n);
    if (rest.n == 0)
        return true;
    if (rest.p[0] != '.' || !slice_starts(slice_skip(rest, 1), v->namespace))
        return false;
    rest = slice_skip(rest, 1 + v->namespace.n);
    return rest.n == 0 || slice_is_str(rest, ".svc") || slice_is_str(rest, ".svc.cluster.local");
}

slice_t names_label(struct names *n, const struct destination *d, const struct wire_rule *rule, slice_t sni)
{
    slice_t host = rule != NULL ? host_of_rule(rule, sni) : SLICE_LIT("");

    if (sni.n == 0)
        return SLICE_LIT("");
    if (host.n > 0)
        return host;
    if (names_service(d->view, sni))
        return sni;
    for (unsigned i = 0; i < n->n; i++)
        if (slice_is(slice(n->text[i], n->sizes[i]), sni))
            return slice(n->text[i], n->sizes[i]);
    if (n->n == NAMES_MAX || sni.n >= sizeof(n->text[0]))
        return SLICE_LIT("other");
    memcpy(n->text[n->n], sni.p, sni.n);
    n->sizes[n->n] = (uint8_t)sni.n;
    return slice(n->text[n->n++], sni.n);
}
