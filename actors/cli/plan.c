/* Arithmetic on addresses; no system call. */
#include "cli/plan.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool plan_bridge_ok(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > 11 || !islower((unsigned char)name[0]) || strcmp(name, "weft") == 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!islower((unsigned char)name[i]) && !isdigit((unsigned char)name[i]))
            return false;
    return true;
}

err_t plan_parse(struct plan *out, const char *net, const char *bridge, struct trouble *why)
{
    const char *slash = strchr(net, '/');
    struct plan p = {0};
    struct in_addr a;
    char host[32];
    char *end = NULL;

    if (!plan_bridge_ok(bridge))
        return trouble_set(why, ERR_OF(USAGE),
                           "bridge %s: 1 to 11 lower-case letters and digits, and not \"weft\"",
                           bridge);
    if (slash == NULL || (size_t)(slash - net) >= sizeof host)
        return trouble_set(why, ERR_OF(USAGE), "net %s: not of the form 10.214.0.0/16", net);
    memcpy(host, net, (size_t)(slash - net));
    host[slash - net] = '\0';
    if (inet_pton(AF_INET, host, &a) != 1 || !isdigit((unsigned char)slash[1]))
        return trouble_set(why, ERR_OF(USAGE), "net %s: not of the form 10.214.0.0/16", net);
    p.prefix = (unsigned)strtoul(slash + 1, &end, 10);
    if (*end != '\0' || p.prefix < 16 || p.prefix > 24)
        return trouble_set(why, ERR_OF(USAGE), "net %s: the prefix must be from 16 to 24", net);
    p.base = ntohl(a.s_addr);
    if ((p.base & (UINT32_MAX >> p.prefix)) != 0)
        return trouble_set(why, ERR_OF(USAGE), "net %s: bits are set behind the prefix", net);
    memcpy(p.bridge_name, bridge, strlen(bridge) + 1);
    p.net6[0] = 0xfd77;
    p.net6[1] = 0x6566;
    p.net6[2] = 0x7400;
    if (strcmp(net, PLAN_DEFAULT_NET) !=
        0) { /* "we" of fd77:6566:7400 gives way to the network */
        p.net6[1] = (uint16_t)(p.base >> 16);
        p.net6[2] = (uint16_t)((p.base & 0xff00) | p.prefix);
    }
    *out = p;
    return OK;
}

static void plan_print(uint32_t address, char out[PLAN_ADDRESS_TEXT])
{
    struct in_addr a = {htonl(address)};

    (void)inet_ntop(AF_INET, &a, out, PLAN_ADDRESS_TEXT);
}

static void plan_print6(const struct plan *p, uint16_t low, char out[PLAN_ADDRESS_TEXT])
{
    struct in6_addr a = {0};

    for (unsigned i = 0; i < 3; i++) {
        a.s6_addr[2 * i] = (uint8_t)(p->net6[i] >> 8);
        a.s6_addr[2 * i + 1] = (uint8_t)(p->net6[i] & 0xff);
    }
    a.s6_addr[14] = (uint8_t)(low >> 8);
    a.s6_addr[15] = (uint8_t)(low & 0xff);
    (void)inet_ntop(AF_INET6, &a, out, PLAN_ADDRESS_TEXT);
}

static void plan_suffix(char text[PLAN_ADDRESS_TEXT], unsigned prefix)
{
    size_t n = strlen(text);

    (void)snprintf(text + n, PLAN_ADDRESS_TEXT - n, "/%u", prefix);
}

void plan_net(const struct plan *p, char out[PLAN_ADDRESS_TEXT])
{
    plan_print(p->base, out);
    plan_suffix(out, p->prefix);
}

void plan_net6(const struct plan *p, char out[PLAN_ADDRESS_TEXT])
{
    plan_print6(p, 0, out);
    plan_suffix(out, 48);
}

void plan_services(const struct plan *p, char out[PLAN_ADDRESS_TEXT])
{
    plan_print(p->base + (1u << (31 - p->prefix)), out);
    plan_suffix(out, p->prefix + 1);
}

void plan_bridge(const struct plan *p, char out[PLAN_ADDRESS_TEXT])
{
    plan_print(p->base + 1, out);
}

void plan_bridge6(const struct plan *p, char out[PLAN_ADDRESS_TEXT])
{
    plan_print6(p, 1, out);
}

uint32_t plan_pods(const struct plan *p)
{
    return (1u << (31 - p->prefix)) -
           3; /* without the network, the bridge and the last of the half */
}

void plan_pod(const struct plan *p, uint32_t n, char out[PLAN_ADDRESS_TEXT])
{
    plan_print(p->base + 2 + n, out);
}

void plan_pod6(const struct plan *p, uint32_t n, char out[PLAN_ADDRESS_TEXT])
{
    plan_print6(p, (uint16_t)(2 + n), out);
}

static bool plan_is_default(const struct plan *p)
{
    return strcmp(p->bridge_name, PLAN_DEFAULT_BRIDGE) == 0;
}

void plan_netns_prefix(const struct plan *p, char out[32])
{
    (void)snprintf(out, 32, "%s-", plan_is_default(p) ? "weft" : p->bridge_name);
}

void plan_netns(const struct plan *p, const char *ns, const char *pod, char out[256])
{
    (void)snprintf(out, 256, "%s-%s-%s", plan_is_default(p) ? "weft" : p->bridge_name, ns, pod);
}

void plan_table(const struct plan *p, char out[32])
{
    if (plan_is_default(p))
        (void)snprintf(out, 32, "weft");
    else
        (void)snprintf(out, 32, "weft_%s", p->bridge_name);
}
