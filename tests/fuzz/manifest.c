/* Any text as a manifest, and what comes of it as resources. What is accepted must have a
 * canonical form that is accepted again and stays as it is, and a view that can be used. */
#include "model/manifest.h"
#include "model/destination.h"
#include "model/route.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void nobody(void *arg, slice_t namespace, slice_t name, uint16_t port,
                   struct destination_backend *out)
{
    (void)arg, (void)namespace, (void)name, (void)port;
    out->exists = false;
}

static void use_route(const struct resource *route)
{
    const struct route_parent *parent = &route->route.parents[0];
    struct resource service = {
        .kind = RESOURCE_SERVICE, .namespace = parent->namespace, .name = parent->name};
    struct destination_input in = {.target = SLICE_LIT("x:1"),
                                   .service = &service,
                                   .port = parent->port != 0 ? parent->port : 1,
                                   .client_namespace = route->namespace,
                                   .routes = &route,
                                   .n_routes = 1,
                                   .lookup = nobody};
    struct route_request request = {.host = SLICE_LIT("a.b"),
                                    .path = SLICE_LIT("/a/b"),
                                    .query = SLICE_LIT("a=b"),
                                    .method = SLICE_LIT("GET")};
    struct route_table *table = NULL;
    struct route_found found;
    struct wire_destination d;
    AUTO(arena_done) struct arena arena;
    char why[160];
    err_t e;

    arena_init(&arena, 0);
    e = destination_build(&in, &arena, &d);
    BUG_ON(e != OK && e != ERR_OF(MODEL_LIMIT));
    if (e != OK)
        return;
    BUG_ON(d.n_rules == 0);
    e = route_table_new(&d, &table, why);
    BUG_ON(e != OK && e != ERR_OF(MODEL_LIMIT));
    if (e == OK)
        (void)route_match(table, &request, &found);
    route_table_free(&table);
}

static void check_resource(const json_t *object)
{
    struct resource *r = NULL, *again = NULL;
    struct why why;
    char text[WHY_TEXT];
    err_t e = resource_parse(object, SLICE_LIT("default"), &r, &why);

    if (e != OK) {
        why_text(&why, text);
        BUG_ON(text[0] == '\0');
        return;
    }
    BUG_ON(resource_parse_text(r->json, SLICE_LIT("other"), &again, &why) != OK);
    BUG_ON(!slice_is(r->json, again->json));
    if (resource_is_route(r->kind))
        use_route(r);
    resource_free(&r);
    resource_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest *m = NULL;
    struct why why;

    if (manifest_parse(slice(data, size), &m, &why) != OK) {
        BUG_ON(why.reason[0] == '\0');
        return 0;
    }
    for (size_t i = 0; i < m->n; i++) {
        check_resource(m->objects[i].json);
        (void)manifest_line(m, i, "spec.rules[0].matches[0]");
    }
    manifest_free(&m);
    return 0;
}
