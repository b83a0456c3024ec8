/* Records of pods, and their removal. */
#include "cli/pod.h"

#include "cli/files.h"
#include "cli/netns.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORD_MAX 4096

bool pod_name_ok(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > POD_NAME_MAX || name[0] == '-' || name[n - 1] == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!islower((unsigned char)name[i]) && !isdigit((unsigned char)name[i]) &&
            name[i] != '-')
            return false;
    return true;
}

void pod_netns(const struct mesh *m, const struct pod *p, char out[256])
{
    plan_netns(&m->plan, p->ns, p->name, out);
}

void pod_run_dir(const struct mesh *m, const struct pod *p, char out[512])
{
    files_path(out, "%s/pods/%s", m->run, p->name);
}

void pod_state_dir(const struct mesh *m, const struct pod *p, char out[512])
{
    files_path(out, "%s/pods/%s", m->state, p->name);
}

void pod_log(const struct mesh *m, const struct pod *p, char out[512])
{
    files_path(out, "%s/log/%s.log", m->state, p->name);
}

static void pod_record_path(const struct mesh *m, const char *name, char out[512])
{
    files_path(out, "%s/owners/%s.json", m->run, name);
}

static bool pod_load(const struct mesh *m, const char *name, struct pod *out)
{
    char path[512];
    struct trouble why;
    struct buf b;
    json_t *o = NULL;
    const char *ns, *owner;
    bool good = false;

    buf_init(&b, 0);
    pod_record_path(m, name, path);
    if (files_read(path, RECORD_MAX, &b, &why) == OK)
        o = json_loadb((const char *)buf_slice(&b).p, buf_len(&b), 0, NULL);
    ns = json_string_value(json_object_get(o, "namespace"));
    owner = json_string_value(json_object_get(o, "owner"));
    if (ns != NULL && strlen(ns) < sizeof out->ns && pod_name_ok(ns) && owner != NULL &&
        proc_parse(owner, &out->owner) && pod_name_ok(name)) {
        memcpy(out->ns, ns, strlen(ns) + 1);
        memcpy(out->name, name, strlen(name) + 1);
        out->number = (uint32_t)json_integer_value(json_object_get(o, "number"));
        good = true;
    }
    json_decref(o);
    buf_done(&b);
    return good;
}

unsigned pod_each(const struct mesh *m, void (*fn)(void *arg, const struct pod *p), void *arg)
{
    char path[FILES_PATH_MAX];
    unsigned n = 0;
    DIR *dir;

    files_path(path, "%s/owners", m->run);
    dir = opendir(path);
    if (dir == NULL)
        return 0;
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        size_t len = strlen(d->d_name);
        char name[POD_NAME_MAX + 1];
        struct pod p;

        if (len <= 5 || len - 5 > POD_NAME_MAX || strcmp(d->d_name + len - 5, ".json") != 0)
            continue;
        memcpy(name, d->d_name, len - 5);
        name[len - 5] = '\0';
        if (!pod_load(m, name, &p))
            continue;
        fn(arg, &p);
        n++;
    }
    closedir(dir);
    return n;
}

struct pod_taken {
    uint32_t want;
    bool is_taken;
};

static void pod_on_taken(void *arg, const struct pod *p)
{
    struct pod_taken *t = arg;

    if (p->number == t->want)
        t->is_taken = true;
}

/* Numbers go round, so that an address is not used again at once: neighbours remember its old
 * owner. */
static err_t pod_number(const struct mesh *m, uint32_t *out, struct trouble *why)
{
    char path[FILES_PATH_MAX], text[16];
    uint32_t pods = plan_pods(&m->plan);
    uint64_t next = 0;
    struct buf b;
    int n;

    buf_init(&b, 0);
    files_path(path, "%s/next", m->run);
    if (files_exists(path) &&
        (files_read(path, 15, &b, why) != OK || !slice_to_u64(buf_slice(&b), &next)))
        next = 0;
    buf_done(&b);
    for (uint32_t tries = 0; tries < pods; tries++, next++) {
        struct pod_taken t = {(uint32_t)(next % pods), false};

        (void)pod_each(m, pod_on_taken, &t);
        if (t.is_taken)
            continue;
        n = snprintf(text, sizeof text, "%u", (t.want + 1) % pods);
        *out = t.want;
        return files_write(path, text, (size_t)n, 0600, (uid_t)-1, why);
    }
    return trouble_set(why, ERR_OF(TOO_BIG), "no address is free in %s", m->net);
}

err_t pod_claim(const struct mesh *m, struct pod *p, struct trouble *why)
{
    char path[512], owner[PROC_ID_TEXT], netns[256], text[RECORD_MAX];
    struct pod other;
    int n;

    pod_record_path(m, p->name, path);
    if (pod_load(m, p->name, &other))
        return trouble_set(
            why, ERR_OF(MESH_EXISTS),
            "a pod %s runs already (namespace %s, weft run is process %d); names of pods "
            "are unique on a machine",
            p->name, other.ns, (int)other.owner.pid);
    if (!proc_identify(getpid(), &p->owner))
        return trouble_set(why, ERR_OF(OS), "/proc cannot be read");
    TRY(pod_number(m, &p->number, why));
    proc_print(&p->owner, owner);
    pod_netns(m, p, netns);
    n = snprintf(
        text, sizeof text,
        "{\"v\": 1, \"namespace\": \"%s\", \"pod\": \"%s\", \"number\": %u, \"owner\": "
        "\"%s\", \"netns\": \"%s\"}\n",
        p->ns, p->name, p->number, owner, netns);
    return files_write(path, text, (size_t)n, 0600, (uid_t)-1, why);
}

err_t pod_remove(const struct mesh *m, const struct pod *p, uint64_t grace_ms,
                 struct trouble *why)
{
    struct proc_list *inside = calloc(1, sizeof *inside);
    char netns[256], path[512];
    struct trouble next;
    err_t first = OK, e;

    pod_netns(m, p, netns);
    netns_path(netns, path);
    if (inside != NULL) {
        /* Twice at least: what is being forked while we look is found by the second look. */
        for (unsigned tries = 0; tries < 5; tries++) {
            proc_in_netns(path, inside);
            if (inside->n == 0)
                break;
            if (proc_end_all(inside, tries == 0 ? grace_ms : 0) != 0 && tries == 4)
                first = trouble_set(why, ERR_OF(OS), "pod %s: a process does not end", p->name);
        }
        free(inside);
    }
    e = netns_del(netns, first == OK ? why : &next);
    first = first == OK ? e : first;
    pod_run_dir(m, p, path);
    e = files_remove_tree(path, first == OK ? why : &next);
    first = first == OK ? e : first;
    pod_state_dir(m, p, path);
    e = files_remove_tree(path, first == OK ? why : &next);
    first = first == OK ? e : first;
    pod_record_path(m, p->name, path);
    if (first == OK && unlink(path) != 0 && errno != ENOENT)
        first = trouble_errno(why, "%s", path);
    return first;
}

struct pod_sweeping {
    const struct mesh *mesh;
    unsigned n;
};

static void pod_on_sweep(void *arg, const struct pod *p)
{
    struct pod_sweeping *s = arg;
    struct trouble why;

    if (proc_is_alive(&p->owner))
        return;
    s->n++;
    if (pod_remove(s->mesh, p, 0, &why) != OK)
        fprintf(stderr, "weft: leftover of pod %s: %s\n", p->name, why.text);
}

unsigned pod_sweep(const struct mesh *m)
{
    struct pod_sweeping s = {m, 0};

    (void)pod_each(m, pod_on_sweep, &s);
    return s.n;
}
