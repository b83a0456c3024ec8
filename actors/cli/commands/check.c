/* weft check: one question per line, what ends soonest first; exit code 1 if something is
 * wrong.
 *
 * A question is a function that adds rows (what, about, ok, text); the order in `questions` is
 * the order on the screen. The process table of the pods on this machine stands below them.
 */
#include "cli/capture.h"
#include "cli/client.h"
#include "cli/command.h"
#include "cli/files.h"
#include "cli/netns.h"
#include "cli/pod.h"
#include "cli/sheet.h"
#include "cli/status.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#define CERT_WARN_S   (2 * 3600)       /* a workload's: renewal is due at half of 24 h */
#define ISSUER_WARN_S (30 * 24 * 3600) /* the issuer's and the root's */
#define SKEW_WARN_MS  30000 /* as the broker's and the links' own warnings */
#define HEARD_WARN_MS 15000 /* links speak every 2 s, the broker writes it every 5 s */
#define LAG_WARN_MS   15000 /* a change that is not in force after so long */
#define DISK_WARN_MIB 16

struct check {
    struct mesh mesh;
    struct client *client; /* NULL: the broker does not answer */
    struct sheet rows, processes;
    json_t *sessions; /* object: "NS/POD" of every session; NULL: not known */
    unsigned bad;
};

static void check_add(struct check *c, bool ok, const char *what, const char *about,
                      const char *fmt, ...) PRINTF_LIKE(5, 6);

static void check_add(struct check *c, bool ok, const char *what, const char *about,
                      const char *fmt, ...)
{
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->bad += ok ? 0 : 1;
    sheet_add(&c->rows, json_pack("{s:b,s:s,s:s,s:s}", "ok", (int)ok, "check", what, "about",
                                  about, "text", text));
}

/* "23h59m", "12d4h", "58s" */
static void check_duration(int64_t s, char out[32])
{
    if (s < 0)
        (void)snprintf(out, 32, "ended %" PRId64 "s ago", -s);
    else if (s >= 2 * 86400)
        (void)snprintf(out, 32, "%" PRId64 "d%" PRId64 "h", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        (void)snprintf(out, 32, "%" PRId64 "h%" PRId64 "m", s / 3600, s % 3600 / 60);
    else
        (void)snprintf(out, 32, "%" PRId64 "m%" PRId64 "s", s / 60, s % 60);
}

/* Runs a query for a question; on an error the question itself is answered with it. */
static json_t *check_query(struct check *c, const char *sql, const char *what)
{
    struct trouble why = {{0}};
    bool truncated;
    struct sheet s;
    json_t *rows;

    sheet_init(&s);
    if (sheet_query(&s, c->mesh.state, sql, 100000, &truncated, &why) != OK) {
        check_add(c, false, what, "database", "%s", why.text);
        sheet_done(&s);
        return NULL;
    }
    rows = json_incref(s.rows);
    sheet_done(&s);
    return rows;
}

static const char *check_text(const json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));

    return s != NULL ? s : "";
}

static int64_t check_number(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

/* ---- questions ---- */

static void check_issuer(struct check *c)
{
    struct wire_status_ask ask = {0};
    const struct wire_msg *answer;
    struct trouble why = {{0}};
    const struct wire_status *s;
    int64_t now = (int64_t)time(NULL);
    char left[32];

    if (c->client == NULL)
        return; /* check_broker says why */
    if (client_ask(c->client, WIRE_status_ask, &ask, WIRE_status, 3000, &answer, &why) != OK) {
        check_add(c, false, "broker", c->mesh.run, "%s", why.text);
        return;
    }
    s = &answer->body.status;
    check_duration(s->issuer_not_after_ms / 1000 - now, left);
    check_add(c, s->issuer_not_after_ms / 1000 - now > ISSUER_WARN_S, "certificate", "issuer",
              "%s left", left);
    check_duration(s->root_not_after_ms / 1000 - now, left);
    check_add(c, s->root_not_after_ms / 1000 - now > ISSUER_WARN_S, "certificate",
              "trust anchor", "%s left", left);
    check_add(c, s->has_authority, "authority", "weft-authority", "%s",
              s->has_authority ? "issues certificates"
                               : "does not answer the broker: no certificate can be issued");
    check_duration((int64_t)(s->up_ms / 1000), left);
    check_add(c, true, "broker", "weft-broker",
              "answers: version %.*s, up %s, revision %" PRIu64 ", %" PRIu32 " sessions",
              SLICE_FMT(s->version), left, s->revision, s->sessions);
}

/* Without room no change is stored and no token made; traffic goes on. */
static void check_disk(struct check *c)
{
    struct statvfs s;
    uint64_t mib;

    if (statvfs(c->mesh.state, &s) != 0) {
        check_add(c, false, "disk", c->mesh.state, "the state directory is not there");
        return;
    }
    mib = (uint64_t)s.f_bavail * s.f_frsize >> 20;
    check_add(c, mib >= DISK_WARN_MIB, "disk", c->mesh.state, "%" PRIu64 " MiB are free", mib);
}

static void check_certificates(struct check *c)
{
    json_t *rows = check_query(c,
                               "select s.namespace||'/'||s.pod as pod,"
                               "c.not_after_ms/1000-unixepoch() as left_s "
                               "from mesh_sessions s left join mesh_certificates c on "
                               "c.namespace=s.namespace and c.pod=s.pod and c.current "
                               "order by left_s",
                               "certificate");
    size_t i;
    json_t *row;
    char left[32];

    json_array_foreach(rows, i, row)
    {
        int64_t s = check_number(row, "left_s");

        if (!json_is_integer(json_object_get(row, "left_s"))) {
            check_add(c, false, "certificate", check_text(row, "pod"), "none was issued");
            continue;
        }
        check_duration(s, left);
        check_add(c, s > CERT_WARN_S, "certificate", check_text(row, "pod"), "%s left", left);
    }
    json_decref(rows);
}

static void check_control(struct check *c)
{
    char dir[FILES_PATH_MAX];
    struct proc_id supervisor;
    struct status s;

    files_path(dir, "%s/control", c->mesh.run);
    if (!mesh_supervisor(&c->mesh, &supervisor)) {
        check_add(c, false, "control plane", c->mesh.run,
                  "its supervisor does not run: weft up");
        return;
    }
    if (!status_read(dir, &s)) {
        check_add(c, false, "control plane", c->mesh.run, "there is no status file");
        return;
    }
    for (size_t i = 0; i < s.n; i++)
        check_add(c, s.at[i].is_ready, "process", s.at[i].name, "%s, %u restarts",
                  s.at[i].state, s.at[i].restarts);
}

/* Said only if it is a problem. */
static void check_lag(struct check *c, const json_t *row)
{
    int64_t silent = check_number(row, "silent_s"), behind = check_number(row, "behind_s");
    const char *pod = check_text(row, "pod");

    if (silent * 1000 > HEARD_WARN_MS)
        check_add(c, false, "link", pod,
                  "last heard %" PRId64 " s ago: its changes do not arrive", silent);
    else if (behind * 1000 > LAG_WARN_MS)
        check_add(c, false, "link", pod,
                  "has applied revision %" PRId64 " of %" PRId64
                  ": what was changed %" PRId64 " s ago is not in force there",
                  check_number(row, "acked_revision"), check_number(row, "newest"), behind);
}

static void check_sessions(struct check *c)
{
    json_t *rows = check_query(c,
                               "select namespace||'/'||pod as pod,serving,clock_skew_ms,"
                               "unixepoch()-unixepoch(last_heard) as silent_s,"
                               "acked_revision,(select max(revision) from revisions) as newest,"
                               /* a session that has just begun has not had the time to say what it holds */
                               "min(unixepoch()-unixepoch(opened),"
                               "(select unixepoch()-min(at_ms)/1000 from revisions r "
                               "where r.revision>s.acked_revision)) as behind_s "
                               "from mesh_sessions s order by 1",
                               "session");
    size_t i;
    json_t *row;

    c->sessions = rows != NULL ? json_object() : NULL;
    json_array_foreach(rows, i, row)
    {
        int64_t skew = check_number(row, "clock_skew_ms");

        (void)json_object_set_new(c->sessions, check_text(row, "pod"), json_true());
        check_add(c, check_number(row, "serving") != 0, "session", check_text(row, "pod"), "%s",
                  check_number(row, "serving") != 0 ? "serving" : "connected, not serving");
        check_lag(c, row);
        if (skew > SKEW_WARN_MS || skew < -SKEW_WARN_MS)
            check_add(c, false, "clock", check_text(row, "pod"),
                      "%" PRId64
                      " ms off the broker's: certificates may seem not yet or no longer "
                      "valid",
                      skew);
    }
    json_decref(rows);
}

static void check_processes(struct check *c, const char *ns, const char *pod, const char *dir,
                            bool report)
{
    struct status s;
    uint64_t sum = 0;

    if (!status_read(dir, &s)) {
        if (report)
            check_add(c, false, "pod", pod, "there is no status file in %s", dir);
        return;
    }
    for (size_t i = 0; i < s.n; i++) {
        uint64_t pss = s.at[i].pid > 0 ? proc_pss_kib(s.at[i].pid) : 0;

        sum += pss;
        sheet_add(&c->processes, json_pack("{s:s,s:s,s:s,s:i,s:s,s:i,s:I}", "namespace", ns,
                                           "pod", pod, "process", s.at[i].name, "pid",
                                           (int)s.at[i].pid, "state", s.at[i].state, "restarts",
                                           (int)s.at[i].restarts, "pss_kib", (json_int_t)pss));
        if (report && !s.at[i].is_ready)
            check_add(c, false, "process", pod, "%s is %s after %u restarts", s.at[i].name,
                      s.at[i].state, s.at[i].restarts);
        if (report && s.at[i].waits_for_port != 0)
            check_add(c, false, "application", pod,
                      "waiting for the application on port %u: nothing listens there at the "
                      "pod's address, so the pod takes no traffic",
                      s.at[i].waits_for_port);
    }
    sheet_add(&c->processes,
              json_pack("{s:s,s:s,s:s,s:n,s:n,s:n,s:I}", "namespace", ns, "pod", pod, "process",
                        "(all)", "pid", "state", "restarts", "pss_kib", (json_int_t)sum));
}

/* A pod that runs here and that the broker does not know: it goes on with what it has, but
 * takes no traffic and hears of nothing. */
static void check_has_session(struct check *c, const struct pod *p)
{
    char name[256];

    (void)snprintf(name, sizeof name, "%s/%s", p->ns, p->name);
    if (c->sessions != NULL && json_object_get(c->sessions, name) == NULL)
        check_add(c, false, "session", name,
                  "it runs here and has no session with the broker (its log tells why)");
}

static void check_on_pod(void *arg, const struct pod *p)
{
    struct check *c = arg;
    char dir[512], said[256];

    pod_run_dir(&c->mesh, p, dir);
    if (!proc_is_alive(&p->owner)) {
        check_add(c, false, "pod", p->name,
                  "its weft run is gone; weft down, or the next weft run, "
                  "tidies");
        return;
    }
    check_has_session(c, p);
    capture_read(dir, said);
    check_add(c, strcmp(said, "ok") == 0, "capture", p->name, "%s", said);
    check_processes(c, p->ns, p->name, dir, true);
}

static void check_pods(struct check *c)
{
    char dir[FILES_PATH_MAX];

    (void)pod_each(&c->mesh, check_on_pod, c);
    files_path(dir, "%s/control", c->mesh.run);
    check_processes(c, c->mesh.control_namespace, "(control plane)", dir, false);
}

static void (*const questions[])(struct check *c) = {
    check_issuer, check_certificates, check_control, check_disk, check_sessions, check_pods};

static bool check_is_bad(const json_t *row)
{
    return json_is_false(json_object_get(row, "ok"));
}

static void check_print(const struct check *c, enum sheet_format format)
{
    json_t *all;

    if (format == SHEET_TABLE) {
        sheet_print(&c->rows, format, check_is_bad, stdout);
        putchar('\n');
        sheet_print(&c->processes, format, NULL, stdout);
        printf("\n%s\n",
               c->bad == 0 ? "All is well." : "Something is wrong: the rows with \"no\".");
        return;
    }
    all = json_pack("{s:b,s:O,s:O}", "ok", (int)(c->bad == 0), "checks", c->rows.rows,
                    "processes", c->processes.rows);
    if (format == SHEET_YAML)
        sheet_print_yaml(all, stdout);
    else
        (void)json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

static void check_columns(struct check *c)
{
    static const char *const rows[] = {"ok", "check", "about", "text"};
    static const char *const processes[] = {"namespace", "pod",      "process", "pid",
                                            "state",     "restarts", "pss_kib"};

    sheet_init(&c->rows);
    sheet_init(&c->processes);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        sheet_column(&c->rows, rows[i]);
    for (size_t i = 0; i < sizeof processes / sizeof processes[0]; i++)
        sheet_column(&c->processes, processes[i]);
}

int command_check(const struct command *self, int argc, char **argv)
{
    const char *run = NULL, *output = NULL;
    const struct opt table[] = {OPT_OUTPUT(&output), OPT_RUN(&run), OPT_TABLE_END};
    struct check c = {.bad = 0};
    enum sheet_format format;
    struct trouble why = {{0}};
    int code;
    err_t e;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 0, 0);
    if (code != 0)
        return code;
    if (sheet_format_parse(output, &format, &why) != OK)
        return command_usage(self, "%s", why.text);
    e = mesh_load(&c.mesh, command_run_dir(run), &why);
    if (e != OK)
        return trouble_exit(&why, e);
    check_columns(&c);
    if (client_open(&c.mesh, &c.client, &why) != OK)
        c.client = NULL;
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++)
        questions[i](&c);
    check_print(&c, format);
    client_close(&c.client);
    sheet_done(&c.rows);
    sheet_done(&c.processes);
    json_decref(c.sessions);
    return c.bad == 0 ? CLI_OK : CLI_FAILED;
}
