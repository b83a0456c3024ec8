/* Where a connection that is not HTTP goes: TLS of the application by its server name (tls_rules of the view), other bytes
 * by tcp_rules; without rules to the service itself. And what its name is called in metrics. */
#ifndef PROXY_PASSAGE_H
#define PROXY_PASSAGE_H

#include "kit/err.h"
#include "kit/slice.h"
#include "proxy/net/conn.h"

struct backend;
struct destination;
struct names;

struct passage {
    struct backend *backend;    /* borrowed from the view; NULL: refused */
    const char *code;           /* of a refusal, as in `weft explain` */
    enum close_reason why;      /* likewise */
    const struct wire_rule *rule; /* NULL: no rules, or none fits */
};

/* `sni` may be empty: only rules without hosts fit then. Draws by weight: call it once per connection. */
void passage_tls(const struct destination *d, slice_t sni, struct passage *out);
void passage_bytes(const struct destination *d, struct passage *out);

/* ---- names in metrics ---- */

#define NAMES_MAX 32 /* of those that no route and no service of the mesh has, per worker */

MUST_USE err_t names_new(struct names **out);
void names_free(struct names **n);
/* What metrics call `sni` (lower case): the name if a route of `rule` or the service has it, the wildcard that fits it, the
 * name if it is among the first NAMES_MAX others, else "other"; "" for no name. Valid as long as d and n. */
slice_t names_label(struct names *n, const struct destination *d, const struct wire_rule *rule, slice_t sni);

#endif
