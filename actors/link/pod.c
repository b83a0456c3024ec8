#include "link/pod.h"

#include "kit/log.h"
#include "kit/random.h"
#include "model/name.h"

#include <stdio.h>
#include <stdlib.h>

/* The next piece of a comma list; false at its end. Spaces around it are dropped. */
static bool next_piece(slice_t *rest, slice_t *out)
{
    while (rest->n > 0 && (rest->p[0] == ',' || rest->p[0] == ' '))
        *rest = slice_skip(*rest, 1);
    const uint8_t *comma = rest->n > 0 ? memchr(rest->p, ',', rest->n) : NULL;
    *out = slice(rest->p, comma != NULL ? (size_t)(comma - rest->p) : rest->n);
    *rest = slice_skip(*rest, out->n);
    while (out->n > 0 && out->p[out->n - 1] == ' ')
        out->n--;
    return out->n > 0;
}

static bool parse_protocol(slice_t text, uint8_t *out)
{
    static const char *const names[] = {"detect", "http1", "http2", "grpc", "opaque"};
    for (uint8_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (slice_is_str(text, names[i])) {
            *out = i;
            return true;
        }
    return false;
}

/* SERVICE:PORT[/PROTOCOL] or :PORT for a port without a service. */
static bool parse_served(slice_t text, struct wire_served *out)
{
    const uint8_t *colon = memchr(text.p, ':', text.n);
    uint64_t port = 0;
    *out = (struct wire_served){0};
    if (colon == NULL)
        return false;
    out->service = slice(text.p, (size_t)(colon - text.p));
    slice_t rest = slice_skip(text, out->service.n + 1);
    const uint8_t *slash = rest.n > 0 ? memchr(rest.p, '/', rest.n) : NULL;
    slice_t number = slash != NULL ? slice(rest.p, (size_t)(slash - rest.p)) : rest;
    if (slash != NULL && !parse_protocol(slice_skip(rest, number.n + 1), &out->protocol))
        return false;
    if (!slice_to_u64(number, &port) || port == 0 || port > 65535)
        return false;
    out->port = (uint16_t)port;
    return out->service.n == 0 || name_is_label(out->service);
}

err_t pod_load(struct link *l)
{
    const char *incarnation = getenv("WEFT_INCARNATION");
    slice_t rest = slice_str(l->set->pod_ips), one;
    (void)snprintf(l->version, sizeof l->version, "%s", WEFT_VERSION);
    if (incarnation == NULL || !slice_to_u64(slice_str(incarnation), &l->incarnation))
        l->incarnation = random_u64() >> 1;
    if (l->set->pod[0] == '\0' ||
        snprintf(l->own_topic, sizeof l->own_topic, "pod/%s/%s", l->set->namespace,
                 l->set->pod) >= (int)sizeof l->own_topic) {
        log_error("no name", "variable=WEFT_POD value=\"%s\"", l->set->pod);
        return ERR_OF(BAD_SETTING);
    }
    while (next_piece(&rest, &one)) {
        if (!name_is_ip(one) ||
            l->n_addresses == sizeof l->addresses / sizeof l->addresses[0]) {
            log_error("bad address", "variable=WEFT_POD_IPS value=\"%.*s\"", SLICE_FMT(one));
            return ERR_OF(BAD_SETTING);
        }
        l->addresses[l->n_addresses++].ip = one;
    }
    rest = slice_str(l->set->serves);
    while (next_piece(&rest, &one)) {
        if (l->n_serves == sizeof l->serves / sizeof l->serves[0] ||
            !parse_served(one, &l->serves[l->n_serves])) {
            log_error("bad served port", "variable=WEFT_SERVES value=\"%.*s\"", SLICE_FMT(one));
            return ERR_OF(LINK_BAD_SERVES);
        }
        l->n_serves++;
    }
    return OK;
}
