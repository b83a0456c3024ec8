/* ip(8) in batches: one process per step instead of one per address. */
#include "cli/netns.h"

#include "cli/files.h"
#include "cli/tool.h"
#include "kit/buf.h"
#include "kit/slice.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NETNS_DIR  "/run/netns"
#define NETNS_MARK "weft-mesh" /* alias of the bridge */

bool netns_machine_has_ipv6(void)
{
    char c = '1';
    int fd = open("/proc/sys/net/ipv6/conf/all/disable_ipv6", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    if (read(fd, &c, 1) != 1)
        c = '1';
    close(fd);
    return c == '0';
}

static err_t netns_ip(const char *netns, const struct buf *script, struct trouble *why)
{
    const char *here[] = {"ip", "-batch", "-", NULL};
    const char *there[] = {"ip", "-n", netns, "-batch", "-", NULL};

    return tool_run(netns != NULL ? there : here, buf_slice(script), NULL, why);
}

/* What comes from the bridge stays on it, and nothing is forwarded onto it. */
static err_t netns_fence(const struct plan *p, struct trouble *why)
{
    const char *nft[] = {"nft", "-f", "-", NULL};
    char table[32];
    struct buf s;
    err_t e;

    plan_table(p, table);
    buf_init(&s, 0);
    e = buf_printf(&s,
                   "table inet %s\n"
                   "delete table inet %s\n"
                   "table inet %s {\n"
                   "    chain fence {\n"
                   "        type filter hook forward priority 0; policy accept;\n"
                   "        iifname \"%s\" oifname != \"%s\" drop\n"
                   "        oifname \"%s\" iifname != \"%s\" drop\n"
                   "    }\n"
                   "}\n",
                   table, table, table, p->bridge_name, p->bridge_name, p->bridge_name,
                   p->bridge_name);
    if (e == OK)
        e = tool_run(nft, buf_slice(&s), NULL, why);
    buf_done(&s);
    return e;
}

bool netns_bridge_is_strange(const struct plan *p)
{
    char path[FILES_PATH_MAX], alias[sizeof NETNS_MARK] = "";
    int fd;

    if (if_nametoindex(p->bridge_name) == 0)
        return false;
    files_path(path, "/sys/class/net/%s/ifalias", p->bridge_name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    if (read(fd, alias, sizeof alias - 1) < 0)
        alias[0] = '\0';
    close(fd);
    return strcmp(alias, NETNS_MARK) != 0;
}

err_t netns_bridge_up(const struct plan *p, bool ipv6, struct trouble *why)
{
    char v4[PLAN_ADDRESS_TEXT], v6[PLAN_ADDRESS_TEXT];
    struct buf s;
    err_t e = OK;

    plan_bridge(p, v4);
    plan_bridge6(p, v6);
    TRY(netns_fence(p, why));
    buf_init(&s, 0);
    if (if_nametoindex(p->bridge_name) == 0)
        e = buf_printf(&s, "link add %s type bridge forward_delay 0\n", p->bridge_name);
    if (e == OK)
        e = buf_printf(&s, "link set %s alias %s\n", p->bridge_name, NETNS_MARK);
    if (e == OK)
        e = buf_printf(&s, "addr replace %s/%u dev %s\n", v4, p->prefix, p->bridge_name);
    if (e == OK && ipv6)
        e = buf_printf(&s, "addr replace %s/48 dev %s nodad\n", v6, p->bridge_name);
    if (e == OK)
        e = buf_printf(&s, "link set %s up\n", p->bridge_name);
    if (e == OK)
        e = netns_ip(NULL, &s, why);
    buf_done(&s);
    return e;
}

err_t netns_bridge_down(const struct plan *p, bool is_recorded, struct trouble *why)
{
    const char *link[] = {"ip", "link", "del", p->bridge_name, NULL};
    const char *nft[] = {"nft", "-f", "-", NULL};
    char table[32], script[128];
    int n;

    plan_table(p, table);
    n = snprintf(script, sizeof script, "table inet %s\ndelete table inet %s\n", table, table);
    if (if_nametoindex(p->bridge_name) != 0) {
        if (!is_recorded && netns_bridge_is_strange(p))
            return trouble_set(why, ERR_OF(NOT_OURS), "interface %s is not Weft's: it stays",
                               p->bridge_name);
        TRY(tool_run(link, slice(NULL, 0), NULL, why));
    }
    return tool_run(nft, slice(script, (size_t)n), NULL, why);
}

/* The end of a veth in the root namespace: the bridge's name and the pod's number. */
static void netns_veth(const struct plan *p, uint32_t n, char out[IFNAMSIZ])
{
    (void)snprintf(out, IFNAMSIZ, "%.10sp%x", p->bridge_name, (unsigned)(n & 0xffff));
}

static err_t netns_script_outside(const struct plan *p, const char *netns, uint32_t n,
                                  struct buf *s)
{
    char veth[IFNAMSIZ];

    netns_veth(p, n, veth);
    TRY(buf_printf(s, "link add %s type veth peer name eth0 netns %s\n", veth, netns));
    return buf_printf(s, "link set %s master %s up\n", veth, p->bridge_name);
}

static err_t netns_script_inside(const struct plan *p, uint32_t n, bool ipv6, struct buf *s)
{
    char v4[PLAN_ADDRESS_TEXT], v6[PLAN_ADDRESS_TEXT];
    char gate4[PLAN_ADDRESS_TEXT], gate6[PLAN_ADDRESS_TEXT];

    plan_pod(p, n, v4);
    plan_pod6(p, n, v6);
    plan_bridge(p, gate4);
    plan_bridge6(p, gate6);
    TRY(buf_printf(s,
                   "link set lo up\n"
                   "link add weft-probe type bridge\n"
                   "addr add %s/%u dev eth0\n",
                   v4, p->prefix));
    if (ipv6)
        TRY(buf_printf(s, "addr add %s/48 dev eth0 nodad\n", v6));
    TRY(buf_printf(s,
                   "link set eth0 up\n"
                   "link set weft-probe up\n"
                   "route add default via %s\n"
                   "route add 192.0.2.0/24 dev weft-probe\n",
                   gate4));
    if (ipv6)
        TRY(buf_printf(s,
                       "route add ::/0 via %s\n"
                       "route add 2001:db8::/32 dev weft-probe\n",
                       gate6));
    return OK;
}

/* What leaves the mesh is refused at once rather than lost: a program that looks up a name at a
 * server out there must not wait for its timeout. Runs behind the redirect, which has turned
 * round what it takes (the packet's destination is a loopback address then, its interface still
 * eth0). */
static err_t netns_fence_inside(const struct plan *p, const char *netns, struct trouble *why)
{
    const char *nft[] = {"ip", "netns", "exec", netns, "nft", "-f", "-", NULL};
    char v4[PLAN_ADDRESS_TEXT], v6[PLAN_ADDRESS_TEXT];
    struct buf s;
    err_t e;

    plan_bridge(p, v4);
    plan_bridge6(p, v6);
    buf_init(&s, 0);
    e = buf_printf(&s,
                   "table inet weft_fence {\n"
                   "    chain leaving {\n"
                   "        type filter hook output priority 10; policy accept;\n"
                   "        oifname != \"eth0\" return\n"
                   "        meta l4proto != { tcp, udp } return\n"
                   "        ip daddr != { %s/%u, 127.0.0.0/8 } reject with icmpx "
                   "admin-prohibited\n"
                   "        ip6 daddr != { %s/48, fe80::/10, ff00::/8, ::1 } reject with icmpx "
                   "admin-prohibited\n"
                   "    }\n"
                   "}\n",
                   v4, p->prefix, v6);
    if (e == OK)
        e = tool_run(nft, buf_slice(&s), NULL, why);
    buf_done(&s);
    return e;
}

err_t netns_add(const struct plan *p, const char *netns, uint32_t n, bool ipv6,
                struct trouble *why)
{
    const char *add[] = {"ip", "netns", "add", netns, NULL};
    struct trouble undo;
    struct buf s;
    err_t e;

    TRY(tool_run(add, slice(NULL, 0), NULL, why));
    buf_init(&s, 0);
    e = netns_script_outside(p, netns, n, &s);
    if (e == OK)
        e = netns_ip(NULL, &s, why);
    buf_done(&s);
    if (e == OK)
        e = netns_script_inside(p, n, ipv6, &s);
    if (e == OK)
        e = netns_ip(netns, &s, why);
    if (e == OK)
        e = netns_fence_inside(p, netns, why);
    buf_done(&s);
    if (e != OK && netns_del(netns, &undo) != OK)
        fprintf(stderr, "weft: %s\n", undo.text); /* the first error is the one to return */
    return e;
}

err_t netns_del(const char *netns, struct trouble *why)
{
    const char *veth[] = {"ip", "-n", netns, "link", "del", "eth0", NULL};
    const char *del[] = {"ip", "netns", "del", netns, NULL};
    struct trouble unused;
    char path[300];

    netns_path(netns, path);
    if (!files_exists(path))
        return OK;
    /* A namespace's end takes its veth along, but some time later; this way it is gone on
     * return. That there is none (a crash half-way) is fine. */
    if (tool_run(veth, slice(NULL, 0), NULL, &unused) != OK && !files_exists(path))
        return OK;
    if (tool_run(del, slice(NULL, 0), NULL, why) == OK || !files_exists(path))
        return OK;
    /* A crash between making the file and mounting the namespace leaves a plain file. */
    return unlink(path) == 0 ? OK : trouble_errno(why, "%s", path);
}

bool netns_is_ours(const char *netns)
{
    const char *show[] = {"ip", "-n", netns, "link", "show", "weft-probe", NULL};
    struct trouble unused;

    return tool_run(show, slice(NULL, 0), NULL, &unused) == OK;
}

void netns_path(const char *netns, char out[300])
{
    (void)snprintf(out, 300, NETNS_DIR "/%s", netns);
}

err_t netns_enter(const char *netns, struct trouble *why)
{
    char path[300];
    int fd;

    netns_path(netns, path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return trouble_errno(why, "%s", path);
    if (setns(fd, CLONE_NEWNET) != 0) {
        err_t e = trouble_errno(why, "%s: cannot enter", path);

        close(fd);
        return e;
    }
    close(fd);
    return OK;
}

unsigned netns_each(const struct plan *p, void (*fn)(void *arg, const char *netns), void *arg)
{
    char prefix[32];
    DIR *dir = opendir(NETNS_DIR);
    unsigned n = 0;

    if (dir == NULL)
        return 0;
    plan_netns_prefix(p, prefix);
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        if (strncmp(d->d_name, prefix, strlen(prefix)) != 0)
            continue;
        fn(arg, d->d_name);
        n++;
    }
    closedir(dir);
    return n;
}
