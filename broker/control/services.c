#include "broker/control/services.h"

#include "kit/log.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define HOSTS_FILE      "hosts"
#define HOSTS_MS        30u /* a burst of new services is one writing */
#define HOSTS_MAX_BYTES (16u << 20)
#define FIRST_HOST      1u /* the network's own address is not given away */

/* ---- addresses ---- */

static err_t parse_cidr(struct control *c)
{
    char ip[32];
    struct in_addr a;
    const char *slash = strchr(c->set->service_cidr, '/');
    uint64_t bits = 0;
    if (slash == NULL || !slice_to_u64(slice_str(slash + 1), &bits) || bits < 8 || bits > 30 ||
        !slice_to_cstr(slice(c->set->service_cidr, (size_t)(slash - c->set->service_cidr)), ip,
                       sizeof ip) ||
        inet_pton(AF_INET, ip, &a) != 1)
        return ERR_OF(BAD_SETTING);
    c->cidr_mask = ~(uint32_t)0 << (32 - bits);
    c->cidr_base = ntohl(a.s_addr) & c->cidr_mask;
    c->next_address = FIRST_HOST;
    return OK;
}

/* The IPv6 address goes with the IPv4 one: the same number in subnet 8000 of the mesh's unique
 * local /48, which is made from the IPv4 network whose upper half the services have (the CLI's
 * plan does the same). */
static void make_addresses(const struct control *c, uint32_t number, char ip4[46], char ip6[46])
{
    struct in_addr a = {.s_addr = htonl(c->cidr_base + number)};
    uint32_t half = ~c->cidr_mask + 1; /* size of the services' half */
    uint32_t base = c->cidr_base & ~half;
    unsigned prefix = (unsigned)__builtin_popcount(c->cidr_mask) - 1;
    bool is_default = base == 0x0ad60000u && prefix == 16;
    unsigned g1 = is_default ? 0x6566 : base >> 16;
    unsigned g2 = is_default ? 0x7400 : ((base & 0xff00) | prefix);
    char text[64];
    struct in6_addr b;
    (void)inet_ntop(AF_INET, &a, ip4, 46);
    (void)snprintf(text, sizeof text, "fd77:%x:%x:8000::%x:%x", g1, g2, number >> 16,
                   number & 0xffff);
    ip6[0] = '\0';
    if (inet_pton(AF_INET6, text, &b) == 1)
        (void)inet_ntop(AF_INET6, &b, ip6, 46);
}

struct service_entry *services_by_address(struct control *c, const char *ip)
{
    struct service_entry *s = NULL;
    HASH_FIND(by_ip4, c->services_by_ip4, ip, strlen(ip), s);
    if (s == NULL)
        HASH_FIND(by_ip6, c->services_by_ip6, ip, strlen(ip), s);
    return s;
}

/* Round robin, so that an address given back is not given away at once to somebody else. */
static err_t allot(struct control *c, struct service_entry *s)
{
    uint32_t hosts = ~c->cidr_mask; /* the last one is broadcast */
    for (uint32_t tried = 0; tried < hosts; tried++) {
        uint32_t number = c->next_address++;
        if (c->next_address >= hosts)
            c->next_address = FIRST_HOST;
        make_addresses(c, number, s->ip4, s->ip6);
        if (number != 0 && services_by_address(c, s->ip4) == NULL)
            return OK;
    }
    return ERR_OF(NO_FREE_ADDRESS);
}

/* ---- table ---- */

struct service_entry *services_find(struct control *c, const char *ns, const char *name)
{
    char key[320];
    struct service_entry *s;
    (void)snprintf(key, sizeof key, "%s/%s", ns, name);
    HASH_FIND_STR(c->services, key, s);
    return s;
}

static void service_add(struct control *c, struct service_entry *s)
{
    HASH_ADD_STR(c->services, name, s);
    HASH_ADD(by_ip4, c->services_by_ip4, ip4[0], strlen(s->ip4), s);
    if (s->ip6[0] != '\0')
        HASH_ADD(by_ip6, c->services_by_ip6, ip6[0], strlen(s->ip6), s);
}

static void service_remove(struct control *c, struct service_entry *s)
{
    HASH_DEL(c->services, s);
    HASH_DELETE(by_ip4, c->services_by_ip4, s);
    if (s->ip6[0] != '\0')
        HASH_DELETE(by_ip6, c->services_by_ip6, s);
    free(s);
}

static void load_one(void *arg, const struct mesh_service *row)
{
    struct control *c = arg;
    struct service_entry *s = calloc(1, sizeof *s);
    struct in_addr a;
    if (s == NULL)
        return;
    int n = snprintf(s->name, sizeof s->name, "%.*s/%.*s", SLICE_FMT(row->ns),
                     SLICE_FMT(row->name));
    if (n < 0 || (size_t)n >= sizeof s->name ||
        !slice_to_cstr(row->ip4, s->ip4, sizeof s->ip4) ||
        !slice_to_cstr(row->ip6, s->ip6, sizeof s->ip6) ||
        inet_pton(AF_INET, s->ip4, &a) != 1) {
        free(s);
        return;
    }
    s->is_of_session = slice_is_str(row->owner, "session");
    uint32_t number = ntohl(a.s_addr) - c->cidr_base;
    if (number >= c->next_address && number < ~c->cidr_mask - 1)
        c->next_address = number + 1;
    service_add(c, s);
}

static void on_hosts_turn(void *arg)
{
    services_write_hosts(arg);
}

err_t services_load(struct control *c)
{
    TRY(parse_cidr(c));
    timer_init(&c->hosts_turn, c->base, on_hosts_turn, c);
    TRY(mesh_each_service(c->mesh, load_one, c));
    c->is_hosts_dirty = true;
    return OK;
}

void services_free(struct control *c)
{
    struct service_entry *s, *next;
    timer_stop(&c->hosts_turn);
    HASH_ITER(hh, c->services, s, next)
    service_remove(c, s);
}

/* ---- changes ---- */

static void split_name(const struct service_entry *s, slice_t *ns, slice_t *name)
{
    const char *slash = strchr(s->name, '/');
    *ns = slice(s->name, (size_t)(slash - s->name));
    *name = slice_str(slash + 1);
}

static err_t choose(struct control *c, struct service_entry *s, slice_t wanted)
{
    struct in_addr a;
    if (slice_to_cstr(wanted, s->ip4, sizeof s->ip4) && inet_pton(AF_INET, s->ip4, &a) == 1 &&
        services_by_address(c, s->ip4) == NULL)
        return OK;
    return allot(c, s);
}

err_t services_stage_put(struct control *c, const char *ns, const char *name,
                         bool is_of_session, slice_t wanted, slice_t ports)
{
    struct service_entry *s = services_find(c, ns, name);
    if (s == NULL) {
        s = calloc(1, sizeof *s);
        if (s == NULL)
            return ERR_OF(NOMEM);
        (void)snprintf(s->name, sizeof s->name, "%s/%s", ns, name);
        err_t e = choose(c, s, wanted);
        if (e != OK) {
            free(s);
            return e;
        }
        s->is_staged = true;
        service_add(c, s);
    }
    s->is_dropped = false;
    s->is_of_session = is_of_session;
    const struct mesh_service row = {.ip4 = slice_str(s->ip4),
                                     .ip6 = slice_str(s->ip6),
                                     .ns = slice_str(ns),
                                     .name = slice_str(name),
                                     .owner = slice_str(is_of_session ? "session" : "object"),
                                     .ports = ports};
    return mesh_put_service(c->mesh, &row);
}

err_t services_stage_drop(struct control *c, const char *ns, const char *name)
{
    struct service_entry *s = services_find(c, ns, name);
    if (s == NULL)
        return OK;
    s->is_dropped = true;
    return mesh_drop_service(c->mesh, slice_str(ns), slice_str(name));
}

void services_accept(struct control *c)
{
    struct service_entry *s, *next;
    HASH_ITER(hh, c->services, s, next)
    {
        c->is_hosts_dirty = c->is_hosts_dirty || s->is_staged || s->is_dropped;
        s->is_staged = false;
        if (s->is_dropped)
            service_remove(c, s);
    }
    if (c->is_hosts_dirty && !timer_is_armed(&c->hosts_turn))
        timer_once(&c->hosts_turn, HOSTS_MS);
}

void services_abandon(struct control *c)
{
    struct service_entry *s, *next;
    HASH_ITER(hh, c->services, s, next)
    {
        s->is_dropped = false;
        if (s->is_staged)
            service_remove(c, s);
    }
}

/* ---- hosts ---- */

static err_t print_hosts(struct control *c, struct buf *out)
{
    struct service_entry *s, *next;
    TRY(buf_printf(out, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"));
    HASH_ITER(hh, c->services, s, next)
    {
        slice_t ns, name;
        split_name(s, &ns, &name);
        const char *const ips[] = {s->ip4, s->ip6};
        for (int i = 0; i < 2; i++) {
            if (ips[i][0] == '\0')
                continue;
            TRY(buf_printf(out, "%s %.*s.%.*s.svc.cluster.local %.*s.%.*s.svc %.*s.%.*s",
                           ips[i], SLICE_FMT(name), SLICE_FMT(ns), SLICE_FMT(name),
                           SLICE_FMT(ns), SLICE_FMT(name), SLICE_FMT(ns)));
            /* One file serves all pods: the short form belongs to the default namespace, and to
             * others where the default has no such service. */
            char bare[254];
            if (slice_is_str(ns, "default") || !slice_to_cstr(name, bare, sizeof bare) ||
                services_find(c, "default", bare) == NULL)
                TRY(buf_printf(out, " %.*s", SLICE_FMT(name)));
            TRY(buf_printf(out, "\n"));
        }
    }
    return OK;
}

void services_write_hosts(struct control *c)
{
    char path[512];
    struct buf out;
    if (!c->is_hosts_dirty)
        return;
    buf_init(&out, HOSTS_MAX_BYTES);
    (void)snprintf(path, sizeof path, "%s/" HOSTS_FILE, c->set->state_dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    slice_t text = slice(NULL, 0);
    bool is_good = fd >= 0 && print_hosts(c, &out) == OK;
    if (is_good) {
        /* In place: pods have this very file mounted. Written first and cut then, so that a
         * reader in between finds every name that stays. */
        text = buf_slice(&out);
        is_good = pwrite(fd, text.p, text.n, 0) == (ssize_t)text.n &&
                  ftruncate(fd, (off_t)text.n) == 0;
    }
    if (fd >= 0)
        (void)close(fd);
    buf_done(&out);
    c->is_hosts_dirty = !is_good;
    if (!is_good)
        log_warn("hosts file not written", "path=%s", path);
}
