#include "model/name.h"

#include <arpa/inet.h>
#include <stdio.h>

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "model/tbl/errors.h"
#undef ERR

static bool is_alnum(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

bool name_is_label(slice_t s)
{
    if (s.n == 0 || s.n > NAME_MAX_LABEL || !is_alnum(s.p[0]) || !is_alnum(s.p[s.n - 1]))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!is_alnum(s.p[i]) && s.p[i] != '-')
            return false;
    return true;
}

/* The bytes before the first `c`; all of them if there is none. */
static slice_t up_to(slice_t s, uint8_t c)
{
    const uint8_t *dot = s.n > 0 ? memchr(s.p, c, s.n) : NULL;

    return dot != NULL ? slice(s.p, (size_t)(dot - s.p)) : s;
}

bool name_is_host(slice_t s)
{
    if (s.n == 0 || s.n > NAME_MAX_HOST)
        return false;
    for (;;) {
        slice_t label = up_to(s, '.');

        if (!name_is_label(label))
            return false;
        if (label.n == s.n)
            return true;
        s = slice_skip(s, label.n + 1);
    }
}

bool name_is_host_or_wildcard(slice_t s)
{
    if (s.n > NAME_MAX_HOST)
        return false;
    return name_is_host(slice_starts(s, SLICE_LIT("*.")) ? slice_skip(s, 2) : s);
}

bool name_is_token(slice_t s, size_t max)
{
    if (s.n == 0 || s.n > max)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];

        if (!is_alnum(lower(c)) && (c == 0 || strchr("!#$%&'*+-.^_`|~", c) == NULL))
            return false;
    }
    return true;
}

bool name_is_ip(slice_t s)
{
    char text[INET6_ADDRSTRLEN];
    uint8_t bin[16];

    return slice_to_cstr(s, text, sizeof(text)) &&
           (inet_pton(AF_INET, text, bin) == 1 || inet_pton(AF_INET6, text, bin) == 1);
}

/* ---- identities ---- */

err_t name_identity_make(const struct name_identity *parts, char out[NAME_MAX_HOST + 1])
{
    char text[2 * NAME_MAX_HOST];
    int n;

    if (!name_is_host(parts->service_account) || !name_is_label(parts->namespace) ||
        !name_is_label(parts->control_namespace) || !name_is_host(parts->trust_domain))
        return ERR_OF(MODEL_NAME);
    n = snprintf(text, sizeof(text), "%.*s.%.*s.serviceaccount.identity.%.*s.%.*s",
                 SLICE_FMT(parts->service_account), SLICE_FMT(parts->namespace),
                 SLICE_FMT(parts->control_namespace), SLICE_FMT(parts->trust_domain));
    if (n <= 0 || n > NAME_MAX_HOST)
        return ERR_OF(MODEL_NAME);
    memcpy(out, text, (size_t)n + 1);
    return OK;
}

err_t name_identity_parse(slice_t text, struct name_identity *out)
{
    static const char middle[] = ".serviceaccount.identity.";
    const size_t n_middle = sizeof(middle) - 1;
    struct name_identity id;
    const uint8_t *at;
    size_t before, ns;

    if (!name_is_host(text))
        return ERR_OF(MODEL_NAME);
    at = memmem(text.p, text.n, middle, n_middle);
    if (at == NULL)
        return ERR_OF(MODEL_NAME);
    before = (size_t)(at - text.p);
    for (ns = before; ns > 0 && text.p[ns - 1] != '.';
         ns--) /* the namespace is the last label */
        continue;
    if (ns < 2)
        return ERR_OF(MODEL_NAME);
    id.service_account = slice(text.p, ns - 1);
    id.namespace = slice(text.p + ns, before - ns);
    text = slice_skip(text, before + n_middle);
    id.control_namespace = up_to(text, '.');
    if (id.control_namespace.n == text.n)
        return ERR_OF(MODEL_NAME);
    id.trust_domain = slice_skip(text, id.control_namespace.n + 1);
    *out = id;
    return OK;
}

/* ---- targets ---- */

static bool parse_port(slice_t s, uint16_t *out)
{
    uint64_t v;

    if (s.n > 5 || !slice_to_u64(s, &v) || v == 0 || v > UINT16_MAX)
        return false;
    *out = (uint16_t)v;
    return true;
}

/* Splits host and port; the brackets of an IPv6 address go away. False if it is neither form.
 */
static bool split_authority(slice_t text, slice_t *host, slice_t *port)
{
    const uint8_t *end;

    *port = slice(NULL, 0);
    if (text.n > 0 && text.p[0] == '[') {
        end = memchr(text.p, ']', text.n);
        if (end == NULL)
            return false;
        *host = slice(text.p + 1, (size_t)(end - text.p) - 1);
        text = slice_skip(text, host->n + 2);
        if (text.n == 0)
            return true;
        if (text.n < 2 || text.p[0] != ':')
            return false;
        *port = slice_skip(text, 1);
        return true;
    }
    *host = up_to(text, ':');
    if (host->n == text.n)
        return true;
    *port = slice_skip(text, host->n + 1);
    return port->n > 0 && memchr(port->p, ':', port->n) == NULL;
}

slice_t name_host_of(slice_t authority)
{
    slice_t host, port;

    if (!split_authority(authority, &host, &port))
        return authority;
    if (host.n > 1 && host.p[host.n - 1] == '.')
        host.n--;
    return host;
}

static bool take_ip(slice_t host, bool in_brackets, struct name_target *t)
{
    char text[INET6_ADDRSTRLEN];
    uint8_t bin[16];
    int family = in_brackets ? AF_INET6 : AF_INET;

    if (!slice_to_cstr(host, text, sizeof(text)) || inet_pton(family, text, bin) != 1)
        return false;
    t->kind = NAME_TARGET_IP;
    t->is_ipv6 = in_brackets;
    return inet_ntop(family, bin, t->host, sizeof(t->host)) != NULL;
}

/* "web", "web.ns", "web.ns.svc", "web.ns.svc.cluster.local" -> ns and name. */
static bool take_service(slice_t host, slice_t default_namespace, struct name_target *t)
{
    slice_t name = up_to(host, '.'), rest = slice_skip(host, name.n + 1);
    slice_t ns = rest.n > 0 ? up_to(rest, '.') : default_namespace;

    rest = slice_skip(rest, ns.n + 1);
    if (name.n < host.n && rest.n > 0 && !slice_is_str(rest, "svc") &&
        !slice_is_str(rest, "svc.cluster.local"))
        return false;
    return name_is_label(ns) && slice_to_cstr(ns, t->namespace, sizeof(t->namespace)) &&
           slice_to_cstr(name, t->name, sizeof(t->name));
}

static err_t take_name(slice_t host, slice_t default_namespace, struct name_target *t)
{
    if (host.n > 1 && host.p[host.n - 1] == '.')
        host.n--;
    if (!slice_to_cstr(host, t->host, sizeof(t->host)))
        return ERR_OF(MODEL_NAME);
    for (char *c = t->host; *c != '\0'; c++)
        *c = (char)lower((uint8_t)*c);
    host = slice_str(t->host);
    if (!name_is_host(host))
        return ERR_OF(MODEL_NAME);
    if (strspn(t->host, "0123456789.") == host.n) /* 10.0.1 and the like are no names */
        return ERR_OF(MODEL_NAME);
    t->kind = take_service(host, default_namespace, t) ? NAME_TARGET_SERVICE : NAME_TARGET_HOST;
    return OK;
}

err_t name_target_parse(slice_t text, slice_t default_namespace, uint16_t default_port,
                        struct name_target *out)
{
    struct name_target t;
    slice_t host, port;
    bool in_brackets = text.n > 0 && text.p[0] == '[';

    memset(&t, 0, sizeof(t));
    if (!split_authority(text, &host, &port))
        return ERR_OF(MODEL_NAME);
    t.port = default_port;
    if (port.n > 0 && !parse_port(port, &t.port))
        return ERR_OF(MODEL_NAME);
    if (t.port == 0)
        return ERR_OF(MODEL_NAME);
    if (!take_ip(host, in_brackets, &t)) {
        if (in_brackets)
            return ERR_OF(MODEL_NAME);
        TRY(take_name(host, default_namespace, &t));
    }
    *out = t;
    return OK;
}

void name_target_format(const struct name_target *t, char out[NAME_TARGET_TEXT])
{
    int n = 0;

    switch (t->kind) {
    case NAME_TARGET_IP:
        n = snprintf(out, NAME_TARGET_TEXT, t->is_ipv6 ? "[%s]:%u" : "%s:%u", t->host,
                     (unsigned)t->port);
        break;
    case NAME_TARGET_SERVICE:
        n = snprintf(out, NAME_TARGET_TEXT, "%s.%s.svc.cluster.local:%u", t->name, t->namespace,
                     (unsigned)t->port);
        break;
    case NAME_TARGET_HOST:
        n = snprintf(out, NAME_TARGET_TEXT, "%s:%u", t->host, (unsigned)t->port);
        break;
    }
    BUG_ON(n <= 0 || n >= NAME_TARGET_TEXT);
}
