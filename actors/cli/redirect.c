/* Prints the ruleset and hands it to nft(8). */
#include "cli/redirect.h"

#include "cli/tool.h"
#include "kit/slice.h"

#include <stdlib.h>
#include <string.h>

#define PORTS 65536u

void redirect_conf_default(struct redirect_conf *c)
{
    *c = (struct redirect_conf){
        .outbound_port = 4140,
        .inbound_port = 4143,
        .admin_port = 4191,
        .uid = REDIRECT_UID,
        .skip_inbound = REDIRECT_DEFAULT_SKIP,
        .skip_outbound = REDIRECT_DEFAULT_SKIP,
        .ipv6 = true,
    };
}

static bool redirect_port(slice_t text, uint64_t *out)
{
    return slice_to_u64(text, out) && *out > 0 && *out < PORTS;
}

/* Marks the ports of a list in a set of 65536: nft refuses overlapping ranges, people write
 * them. */
static bool redirect_mark(const char *list, bool *set)
{
    while (*list != '\0') {
        size_t n = strcspn(list, ",");
        slice_t part = slice(list, n);
        const uint8_t *dash = memchr(part.p, '-', part.n);
        uint64_t low, high;

        if (dash == NULL) {
            if (!redirect_port(part, &low))
                return false;
            high = low;
        } else if (!redirect_port(slice(part.p, (size_t)(dash - part.p)), &low) ||
                   !redirect_port(slice_skip(part, (size_t)(dash - part.p) + 1), &high) ||
                   low > high) {
            return false;
        }
        for (uint64_t p = low; p <= high; p++)
            set[p] = true;
        list += n;
        if (*list == ',' && *++list == '\0')
            return false;
    }
    return true;
}

static err_t redirect_print_set(const bool *set, struct buf *out)
{
    const char *comma = "";

    for (uint32_t low = 1; low < PORTS; low++) {
        uint32_t high = low;

        if (!set[low])
            continue;
        while (high + 1 < PORTS && set[high + 1])
            high++;
        if (low == high)
            TRY(buf_printf(out, "%s%u", comma, low));
        else
            TRY(buf_printf(out, "%s%u-%u", comma, low, high));
        comma = ", ";
        low = high;
    }
    return OK;
}

static err_t redirect_print_skip(const char *list, uint16_t always, const char *option,
                                 struct buf *out, struct trouble *why)
{
    bool *set = calloc(PORTS, sizeof *set);
    err_t e = OK;

    if (set == NULL)
        return trouble_set(why, ERR_OF(NOMEM), "out of memory");
    if (!redirect_mark(list, set)) {
        e = trouble_set(why, ERR_OF(USAGE),
                        "--%s %s: ports and ranges with commas, e.g. 25,9000-9010", option,
                        list);
    } else if (always != 0 || list[0] != '\0') {
        if (always != 0)
            set[always] = true;
        e = buf_printf(out, "        tcp dport { ");
        if (e == OK)
            e = redirect_print_set(set, out);
        if (e == OK)
            e = buf_printf(out, " } return comment \"skipped ports\"\n");
    }
    free(set);
    return e;
}

err_t redirect_print(const struct redirect_conf *c, struct buf *out, struct trouble *why)
{
    if (c->outbound_port == 0 || c->inbound_port == 0)
        return trouble_set(why, ERR_OF(USAGE),
                           "a port of the redirect must be from 1 to 65535");
    if (c->outbound_port == c->inbound_port)
        return trouble_set(why, ERR_OF(USAGE), "the outbound and the inbound port must differ");
    /* "add, delete, add": the first line makes the second one valid when there is no table yet.
     */
    TRY(buf_printf(out, "table inet weft\n"
                        "delete table inet weft\n"
                        "table inet weft {\n"
                        "    chain outbound {\n"
                        "        type nat hook output priority -100; policy accept;\n"
                        "        meta l4proto != tcp return\n"));
    if (!c->ipv6)
        TRY(buf_printf(out,
                       "        meta nfproto ipv6 return comment \"IPv6 is left alone\"\n"));
    TRY(buf_printf(out,
                   "        meta skuid %u return comment \"Weft's own connections\"\n"
                   "        oifname \"lo\" return comment \"to the pod itself\"\n",
                   c->uid));
    TRY(redirect_print_skip(c->skip_outbound, 0, "skip-outbound", out, why));
    TRY(buf_printf(out,
                   "        meta l4proto tcp redirect to :%u\n"
                   "    }\n"
                   "    chain inbound {\n"
                   "        type nat hook prerouting priority -100; policy accept;\n"
                   "        meta l4proto != tcp return\n",
                   c->outbound_port));
    if (!c->ipv6)
        TRY(buf_printf(out,
                       "        meta nfproto ipv6 return comment \"IPv6 is left alone\"\n"));
    TRY(buf_printf(out, "        iifname \"lo\" return comment \"from the pod itself\"\n"));
    TRY(redirect_print_skip(c->skip_inbound, c->admin_port, "skip-inbound", out, why));
    return buf_printf(out,
                      "        meta l4proto tcp redirect to :%u\n"
                      "    }\n"
                      "}\n",
                      c->inbound_port);
}

static err_t redirect_nft(slice_t script, const char *netns, struct trouble *why)
{
    const char *here[] = {"nft", "-f", "-", NULL};
    const char *there[] = {"ip", "netns", "exec", netns, "nft", "-f", "-", NULL};

    return tool_run(netns != NULL ? there : here, script, NULL, why);
}

err_t redirect_apply(const struct redirect_conf *c, const char *netns, struct trouble *why)
{
    struct buf script;
    err_t e;

    buf_init(&script, 0);
    e = redirect_print(c, &script, why);
    if (e == OK)
        e = redirect_nft(buf_slice(&script), netns, why);
    buf_done(&script);
    return e;
}

err_t redirect_remove(const char *netns, struct trouble *why)
{
    return redirect_nft(SLICE_LIT("table inet weft\ndelete table inet weft\n"), netns, why);
}
