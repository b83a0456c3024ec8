/* Service and EndpointSlice. */
#include "model/name.h"
#include "model/resource_priv.h"

#include <stdlib.h>

enum { MAX_PORTS = 64, MAX_ENDPOINTS = 4096, MAX_RANGES = 64, NORMAL_WEIGHT = 10000 };

static const char *const root_fields[] = {"apiVersion", "kind",   "metadata",
                                          "spec",       "status", NULL};

/* ---- ports ---- */

/* Kubernetes' appProtocol, and our own words. */
static err_t check_app_protocol(const struct look *at, uint8_t *out)
{
    static const struct {
        const char *text;
        uint8_t protocol;
    } words[] = {
        {"http", PROTOCOL_HTTP1},
        {"http1", PROTOCOL_HTTP1},
        {"kubernetes.io/h2c", PROTOCOL_HTTP2},
        {"h2c", PROTOCOL_HTTP2},
        {"http2", PROTOCOL_HTTP2},
        {"grpc", PROTOCOL_GRPC},
        {"tcp", PROTOCOL_OPAQUE},
        {"opaque", PROTOCOL_OPAQUE},
        {"linkerd.io/opaque", PROTOCOL_OPAQUE},
        {"https", PROTOCOL_OPAQUE},
        {"tls", PROTOCOL_OPAQUE},
        {"linkerd.io/tls", PROTOCOL_OPAQUE},
        {"linkerd.io/tcp", PROTOCOL_OPAQUE},
        {"kubernetes.io/ws", PROTOCOL_HTTP1},
        {"kubernetes.io/wss", PROTOCOL_OPAQUE},
    };
    slice_t s;

    TRY(look_text(at, 128, &s));
    *out = PROTOCOL_DETECT; /* others are detected, as Kubernetes allows any text here */
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (slice_is_str(s, words[i].text))
            *out = words[i].protocol;
    return OK;
}

static err_t check_transport(const struct look *port)
{
    static const char *const words[] = {"TCP", "UDP", "SCTP", NULL};
    struct look field;
    size_t which;

    if (!look_at(port, "protocol", &field))
        return OK;
    TRY(look_word(&field, words, &which));
    if (which != 0)
        resource_note(port->ctx->resource, "ports of UDP and SCTP pass by the mesh");
    return OK;
}

static err_t check_target_port(const struct look *at, struct service_port *out)
{
    if (json_is_string(at->v))
        return look_label(at, &out->target_name);
    return look_port(at, &out->target_port);
}

static err_t check_port(const struct look *at, bool is_service, struct service_port *out)
{
    static const char *const service_fields[] = {
        "name", "port", "protocol", "appProtocol", "targetPort", "nodePort", NULL};
    static const char *const slice_fields[] = {"name", "port", "protocol", "appProtocol", NULL};
    struct look field;

    TRY(look_object(at, is_service ? service_fields : slice_fields));
    TRY(look_need(at, "port", &field));
    TRY(look_port(&field, &out->port));
    TRY(check_transport(at));
    if (look_at(at, "name", &field)) {
        TRY(look_text(&field, 63, &out->name));
        if (out->name.n > 0)
            TRY(look_label(&field, &out->name));
    }
    if (look_at(at, "appProtocol", &field))
        TRY(check_app_protocol(&field, &out->protocol));
    if (look_at(at, "targetPort", &field))
        TRY(check_target_port(&field, out));
    return OK;
}

static err_t check_ports(const struct look *at, bool is_service, struct service_port **out,
                         size_t *n_out)
{
    size_t n;
    void *ports;

    TRY(look_list(at, MAX_PORTS, &n));
    TRY(look_alloc(at, n, sizeof(**out), &ports));
    *out = ports;
    *n_out = n;
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(at, i), field;

        TRY(check_port(&item, is_service, &(*out)[i]));
        for (size_t j = 0; j < i; j++) {
            if (is_service && (*out)[j].port == (*out)[i].port &&
                look_at(&item, "port", &field))
                return look_refuse(&field, "%u is given twice", (unsigned)(*out)[i].port);
            if (slice_is((*out)[j].name, (*out)[i].name) && n > 1)
                return look_refuse(&item, "several ports need names, each its own");
        }
    }
    return OK;
}

/* ---- opaque ports: "25,3306,8000-8010" and names ---- */

static slice_t trim(slice_t s)
{
    while (s.n > 0 && s.p[0] == ' ')
        s = slice_skip(s, 1);
    while (s.n > 0 && s.p[s.n - 1] == ' ')
        s.n--;
    return s;
}

static err_t apply_opaque_word(const struct look *at, slice_t word, struct service *s)
{
    struct port_range range = {0, 0};
    bool is_range = resource_parse_range(word, &range), is_name = false;

    for (size_t i = 0; i < s->n_ports; i++) {
        bool has_name = !is_range && word.n > 0 && slice_is(s->ports[i].name, word);

        is_name = is_name || has_name;
        if (has_name ||
            (is_range && s->ports[i].port >= range.low && s->ports[i].port <= range.high))
            s->ports[i].protocol = PROTOCOL_OPAQUE;
    }
    if (!is_range && !is_name)
        return look_refuse(
            at, "\"%.*s\" is neither a port, a range nor the name of a port of this service",
            word.n > 60 ? 60 : (int)word.n, (const char *)word.p);
    return OK;
}

static err_t check_opaque_ports(const struct look *root, struct service *s)
{
    struct look up[2], field;
    slice_t rest;

    if (!resource_annotation(root, "config.linkerd.io/opaque-ports", up, &field))
        return OK;
    TRY(look_text(&field, 1024, &rest));
    for (unsigned n = 0; rest.n > 0; n++) {
        const uint8_t *comma = memchr(rest.p, ',', rest.n);
        slice_t word = slice(rest.p, comma != NULL ? (size_t)(comma - rest.p) : rest.n);

        if (n == MAX_RANGES)
            return look_refuse(&field, "names more than %d ports", MAX_RANGES);
        TRY(apply_opaque_word(&field, trim(word), s));
        rest = slice_skip(rest, word.n + 1);
    }
    return OK;
}

/* ---- Service ---- */

static err_t check_cluster_ip(const struct look *spec, struct service *s)
{
    struct look field;

    if (!look_at(spec, "clusterIP", &field))
        return OK;
    TRY(look_text(&field, 45, &s->cluster_ip));
    s->is_headless = slice_is_str(s->cluster_ip, "None");
    if (s->is_headless)
        s->cluster_ip = slice(NULL, 0);
    else if (s->cluster_ip.n > 0 && !name_is_ip(s->cluster_ip))
        return look_refuse(&field, "\"%s\" is not an address (or None)",
                           (const char *)s->cluster_ip.p);
    return OK;
}

static err_t check_type(const struct look *spec)
{
    static const char *const types[] = {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName",
                                        NULL};
    struct look field;
    size_t which;

    if (!look_at(spec, "type", &field))
        return OK;
    TRY(look_word(&field, types, &which));
    if (which == 3)
        return look_refuse(
            &field,
            "services of the type ExternalName have no endpoints that the mesh could know");
    if (which != 0)
        resource_note(spec->ctx->resource,
                      "spec.type: the mesh serves it inside only, as ClusterIP");
    return OK;
}

err_t resource_check_service(const struct look *root, struct resource *r)
{
    static const char *const fields[] = {
        "ports", "clusterIP", "type",
        /* of Kubernetes, without a meaning here */
        "clusterIPs", "selector", "sessionAffinity", "sessionAffinityConfig", "ipFamilies",
        "ipFamilyPolicy", "internalTrafficPolicy", "externalTrafficPolicy",
        "publishNotReadyAddresses", "externalIPs", "loadBalancerIP", "loadBalancerClass",
        "loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "healthCheckNodePort",
        "trafficDistribution", NULL};
    struct service *s = &r->service;
    struct look spec, field;

    TRY(look_object(root, root_fields));
    TRY(look_need(root, "spec", &spec));
    TRY(look_object(&spec, fields));
    TRY(check_type(&spec));
    TRY(check_cluster_ip(&spec, s));
    TRY(look_need(&spec, "ports", &field));
    TRY(check_ports(&field, true, &s->ports, &s->n_ports));
    if (s->n_ports == 0)
        return look_refuse(&field, "must have at least one port");
    TRY(check_opaque_ports(root, s));
    TRY(resource_check_annotations(root));
    TRY(resource_check_balancing(root, s));
    return resource_check_limits(root, &s->limits);
}

/* ---- EndpointSlice ---- */

static err_t check_conditions(const struct look *endpoint, bool *is_ready)
{
    static const char *const known[] = {"ready", "serving", "terminating", NULL};
    struct look conditions, field;
    bool is_terminating = false;

    *is_ready = true;
    if (!look_at(endpoint, "conditions", &conditions))
        return OK;
    TRY(look_object(&conditions, known));
    if (look_at(&conditions, "ready", &field))
        TRY(look_bool(&field, is_ready));
    if (look_at(&conditions, "serving", &field)) {
        bool ignored;

        TRY(look_bool(&field, &ignored));
    }
    if (look_at(&conditions, "terminating", &field))
        TRY(look_bool(&field, &is_terminating));
    *is_ready = *is_ready && !is_terminating;
    return OK;
}

static err_t check_address(const struct look *at, bool is_ipv6, slice_t *out)
{
    bool has_colon;

    TRY(look_text(at, 45, out));
    has_colon = out->n > 0 && memchr(out->p, ':', out->n) != NULL;
    if (!name_is_ip(*out))
        return look_refuse(at, "\"%s\" is not an address", (const char *)out->p);
    if (has_colon != is_ipv6)
        return look_refuse(at, "\"%s\" does not fit addressType", (const char *)out->p);
    return OK;
}

/* One entry may have several addresses; each becomes an endpoint of its own. */
static err_t check_endpoint(const struct look *at, bool is_ipv6, struct endpoint_slice *s)
{
    static const char *const known[] = {"addresses", "conditions",         "zone",
                                        "hostname",  "nodeName",           "targetRef",
                                        "hints",     "deprecatedTopology", NULL};
    struct slice_endpoint e = {.is_ready = true};
    struct look addresses, field;
    size_t n;

    TRY(look_object(at, known));
    TRY(check_conditions(at, &e.is_ready));
    if (look_at(at, "zone", &field))
        TRY(look_text(&field, 63, &e.zone));
    if (look_at(at, "hostname", &field))
        TRY(look_label(&field, &e.hostname));
    TRY(look_need(at, "addresses", &addresses));
    TRY(look_list(&addresses, 100, &n));
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(&addresses, i);

        if (s->n_endpoints == MAX_ENDPOINTS)
            return look_refuse(&item, "is beyond %d addresses", MAX_ENDPOINTS);
        TRY(check_address(&item, is_ipv6, &e.address));
        s->endpoints[s->n_endpoints++] = e;
    }
    return OK;
}

/* How many addresses are there at most: what the array is made for. */
static size_t count_addresses(const struct look *list, size_t n)
{
    size_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += json_array_size(json_object_get(look_item(list, i).v, "addresses"));
    return sum < MAX_ENDPOINTS ? sum : MAX_ENDPOINTS;
}

static err_t check_service_label(const struct look *root, slice_t *out)
{
    struct look metadata, labels, field;
    struct look here = {root->ctx, root, "metadata", 0, NULL};

    if (!look_at(root, "metadata", &metadata) || !look_at(&metadata, "labels", &labels) ||
        !look_at(&labels, "kubernetes.io/service-name", &field))
        return look_refuse(&here, "the label kubernetes.io/service-name is missing: it says "
                                  "whose endpoints these are");
    return look_label(&field, out);
}

err_t resource_check_endpoint_slice(const struct look *root, struct resource *r)
{
    static const char *const fields[] = {"apiVersion", "kind",  "metadata", "addressType",
                                         "endpoints",  "ports", NULL};
    static const char *const types[] = {"IPv4", "IPv6", NULL};
    struct endpoint_slice *s = &r->endpoint_slice;
    struct look field, up[2];
    size_t type, n;
    void *endpoints;

    TRY(look_object(root, fields));
    TRY(resource_check_annotations(root));
    s->weight = NORMAL_WEIGHT;
    if (resource_annotation(root, "balancer.weft.io/weight", up, &field))
        TRY(resource_parse_whole(&field, 0, 1000000, &s->weight));
    TRY(check_service_label(root, &s->service));
    TRY(look_need(root, "addressType", &field));
    TRY(look_word(&field, types, &type));
    if (look_at(root, "ports", &field))
        TRY(check_ports(&field, false, &s->ports, &s->n_ports));
    if (!look_at(root, "endpoints", &field))
        return OK;
    TRY(look_list(&field, MAX_ENDPOINTS, &n));
    TRY(look_alloc(&field, count_addresses(&field, n), sizeof(*s->endpoints), &endpoints));
    s->endpoints = endpoints;
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(&field, i);

        TRY(check_endpoint(&item, type == 1, s));
    }
    return OK;
}
