/* weft redirect: the ruleset of one namespace, and whether it works. */
#include "cli/redirect.h"
#include "cli/capture.h"
#include "cli/command.h"
#include "cli/netns.h"
#include "cli/report.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct redirect_args {
    struct redirect_conf conf;
    uint32_t outbound, inbound, admin;
    bool no_ipv6, is_quiet;
    const char *netns;
    struct opt_list pod_addresses;
    const char *report, *pod;
    uint64_t wait_ms;
};

static int redirect_do_print(struct redirect_args *a)
{
    struct trouble why = {{0}};
    struct buf b;
    err_t e;

    buf_init(&b, 0);
    e = redirect_print(&a->conf, &b, &why);
    if (e == OK)
        (void)fwrite(buf_slice(&b).p, 1, buf_len(&b), stdout);
    buf_done(&b);
    return trouble_exit(&why, e);
}

/* Probes of one direction; false and the reason if one of them fails. */
static bool redirect_try(const char *const ips[], size_t n, const char *direction,
                         uint32_t wait_ms, struct trouble *reason)
{
    for (size_t i = 0; i < n; i++) {
        struct trouble error = {{0}};
        enum capture_result r = capture_probe(ips[i], wait_ms, &error);

        if (r == CAPTURE_WORKS)
            continue;
        capture_explain(r, direction, ips[i], &error, reason);
        return false;
    }
    return true;
}

/* Inbound first: it is asked from where the command runs, before it enters the namespace. */
static bool redirect_probe(const struct redirect_args *a, struct trouble *reason)
{
    const char *out[] = {CAPTURE_IPV4, CAPTURE_IPV6};
    size_t n_out = a->no_ipv6 ? 1 : 2;

    if (!redirect_try(a->pod_addresses.at, a->pod_addresses.n, "inbound", (uint32_t)a->wait_ms,
                      reason))
        return false;
    if (a->netns != NULL && netns_enter(a->netns, reason) != OK)
        return false;
    return redirect_try(out, n_out, "outbound", (uint32_t)a->wait_ms, reason);
}

static int redirect_do_check(struct redirect_args *a)
{
    struct trouble reason = {{0}}, why = {{0}};
    bool is_ok;

    if (geteuid() == a->conf.uid) {
        fprintf(stderr, "weft: uid %u is exempt from the redirect and cannot check it\n",
                a->conf.uid);
        return CLI_USAGE;
    }
    is_ok = redirect_probe(a, &reason);
    if (a->report != NULL) {
        err_t e = capture_write(a->report, is_ok, reason.text, &why);

        if (e != OK)
            return trouble_exit(&why, e);
        report_capture(a->report, a->pod != NULL ? a->pod : "", is_ok, reason.text);
    }
    if (is_ok && !a->is_quiet)
        printf("ok\n");
    if (!is_ok && !a->is_quiet)
        fprintf(stderr, "weft: not protected: %s\n", reason.text);
    return is_ok ? CLI_OK : CLI_FAILED;
}

static int redirect_verb(const struct command *self, struct redirect_args *a, const char *verb)
{
    struct trouble why = {{0}};
    err_t e;

    if (strcmp(verb, "print") == 0)
        return redirect_do_print(a);
    if (strcmp(verb, "check") == 0)
        return redirect_do_check(a);
    if (strcmp(verb, "apply") == 0)
        e = redirect_apply(&a->conf, a->netns, &why);
    else if (strcmp(verb, "remove") == 0)
        e = redirect_remove(a->netns, &why);
    else
        return command_usage(self, "%s: print, apply, remove or check", verb);
    return trouble_exit(&why, e);
}

int command_redirect(const struct command *self, int argc, char **argv)
{
    struct redirect_args a = {.wait_ms = CAPTURE_WAIT_MS};
    const struct opt table[] = {
        {OPT_U32, 0, "outbound-port", "PORT", "where the application's connections go (4140)",
         &a.outbound},
        {OPT_U32, 0, "inbound-port", "PORT", "where connections to the application go (4143)",
         &a.inbound},
        {OPT_U32, 0, "admin-port", "PORT", "never redirected inbound (4191)", &a.admin},
        {OPT_U32, 0, "uid", "UID", "whose connections are left alone (2102)", &a.conf.uid},
        {OPT_TEXT, 0, "skip-inbound", "PORTS", "ports and ranges left alone (4567,4568)",
         &a.conf.skip_inbound},
        {OPT_TEXT, 0, "skip-outbound", "PORTS", "ports and ranges left alone (4567,4568)",
         &a.conf.skip_outbound},
        {OPT_FLAG, 0, "no-ipv6", NULL, "leave IPv6 alone", &a.no_ipv6},
        {OPT_TEXT, 0, "netns", "NAME", "the namespace (ip netns); default: this one", &a.netns},
        {OPT_MANY, 0, "pod-address", "IP",
         "check: also probe inbound at this address, from here", &a.pod_addresses},
        {OPT_TEXT, 0, "report", "DIR",
         "check: write the result to this pod run directory and tell "
         "weft-telemetry",
         &a.report},
        {OPT_TEXT, 0, "pod", "NS/POD", "check: whom the report is about", &a.pod},
        {OPT_MS, 0, "timeout", "TIME", "check: longest wait for one probe (2s)", &a.wait_ms},
        {OPT_FLAG, 'q', "quiet", NULL, "check: only the exit code", &a.is_quiet},
        OPT_TABLE_END,
    };
    int code;

    redirect_conf_default(&a.conf);
    a.outbound = a.conf.outbound_port;
    a.inbound = a.conf.inbound_port;
    a.admin = a.conf.admin_port;
    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 1, 1);
    if (code != 0)
        return code;
    if (a.outbound > UINT16_MAX || a.inbound > UINT16_MAX || a.admin > UINT16_MAX)
        return command_usage(self, "a port is larger than 65535");
    if (a.wait_ms == 0 || a.wait_ms > 60000)
        return command_usage(self, "--timeout: more than 0 and at most 60s");
    a.conf.outbound_port = (uint16_t)a.outbound;
    a.conf.inbound_port = (uint16_t)a.inbound;
    a.conf.admin_port = (uint16_t)a.admin;
    a.conf.ipv6 = !a.no_ipv6;
    return redirect_verb(self, &a, argv[1]);
}
