/* The record of a mesh as JSON. */
#include "cli/mesh.h"

#include "cli/files.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAX (64u << 10)

/* Absolute, without "//", "/./" at the ends that people type; ".." is refused: it would be
 * removed later. */
static err_t mesh_set_dir(char *into, size_t cap, const char *dir, const char *option,
                          struct trouble *why)
{
    char cwd[FILES_PATH_MAX], path[2 * FILES_PATH_MAX];
    size_t n;

    if (dir[0] == '\0')
        return trouble_set(why, ERR_OF(USAGE), "--%s is empty", option);
    if (dir[0] == '/')
        n = (size_t)snprintf(path, sizeof path, "%s", dir);
    else if (getcwd(cwd, sizeof cwd) != NULL)
        n = (size_t)snprintf(path, sizeof path, "%s/%s", cwd, dir);
    else
        return trouble_errno(why, "working directory");
    if (n >= sizeof path)
        return trouble_set(why, ERR_OF(USAGE), "--%s: the path is too long", option);
    while (n > 1 && path[n - 1] == '/')
        path[--n] = '\0';
    if (strstr(path, "/../") != NULL || (n >= 3 && strcmp(path + n - 3, "/..") == 0))
        return trouble_set(why, ERR_OF(USAGE), "--%s: the path must not hold \"..\"", option);
    if (n >= cap)
        return trouble_set(why, ERR_OF(USAGE), "--%s: more than %zu characters: %s", option,
                           cap - 1, path);
    if (n == 1)
        return trouble_set(why, ERR_OF(USAGE), "--%s: the root directory is no good place",
                           option);
    memcpy(into, path, n + 1);
    return OK;
}

err_t mesh_set_dirs(struct mesh *m, const char *run, const char *state, struct trouble *why)
{
    TRY(mesh_set_dir(m->run, sizeof m->run, run, "run", why));
    return mesh_set_dir(m->state, sizeof m->state, state, "state", why);
}

static bool mesh_text(const json_t *o, const char *key, char *into, size_t cap)
{
    const char *s = json_string_value(json_object_get(o, key));

    if (s == NULL || strlen(s) >= cap)
        return false;
    memcpy(into, s, strlen(s) + 1);
    return true;
}

static err_t mesh_parse(struct mesh *m, const json_t *o, const char *path, struct trouble *why)
{
    char bridge[16];

    if (!mesh_text(o, "state", m->state, sizeof m->state) ||
        !mesh_text(o, "net", m->net, sizeof m->net) ||
        !mesh_text(o, "bridge", bridge, sizeof bridge) ||
        !mesh_text(o, "control_namespace", m->control_namespace, sizeof m->control_namespace) ||
        !mesh_text(o, "trust_domain", m->trust_domain, sizeof m->trust_domain))
        return trouble_set(why, ERR_OF(MALFORMED), "%s is damaged", path);
    m->ipv6 = json_is_true(json_object_get(o, "ipv6"));
    return plan_parse(&m->plan, m->net, bridge, why);
}

err_t mesh_load(struct mesh *m, const char *run, struct trouble *why)
{
    char path[FILES_PATH_MAX];
    struct buf b;
    json_t *o;
    err_t e;

    memset(m, 0, sizeof *m);
    TRY(mesh_set_dir(m->run, sizeof m->run, run, "run", why));
    files_path(path, "%s/mesh.json", m->run); /* run is short */
    if (!files_exists(path))
        return trouble_set(why, ERR_OF(NO_MESH), "no mesh runs here (%s is not there): weft up",
                           path);
    buf_init(&b, 0);
    e = files_read(path, RECORD_MAX, &b, why);
    if (e == OK) {
        slice_t text = buf_slice(&b);

        o = json_loadb((const char *)text.p, text.n, 0, NULL);
        e = mesh_parse(m, o, path, why);
        json_decref(o);
    }
    buf_done(&b);
    return e;
}

err_t mesh_store(const struct mesh *m, struct trouble *why)
{
    char path[FILES_PATH_MAX];
    json_t *o =
        json_pack("{s:i,s:s,s:s,s:s,s:s,s:b,s:s,s:s}", "v", 1, "run", m->run, "state", m->state,
                  "net", m->net, "bridge", m->plan.bridge_name, "ipv6", (int)m->ipv6,
                  "control_namespace", m->control_namespace, "trust_domain", m->trust_domain);
    char *text = o != NULL ? json_dumps(o, JSON_INDENT(2)) : NULL;
    err_t e = text == NULL ? trouble_set(why, ERR_OF(NOMEM), "out of memory") : OK;

    json_decref(o);
    files_path(path, "%s/mesh.json", m->run);
    if (e == OK)
        e = files_write(path, text, strlen(text), 0644, (uid_t)-1, why);
    free(text);
    return e;
}

/* `weft down` removes the directory with the lock in it, and the next `weft up` makes another:
 * who waited for the old one then holds nothing. */
static bool mesh_lock_is_at(int fd, const char *path)
{
    struct stat held, there;

    return fstat(fd, &held) == 0 && lstat(path, &there) == 0 && held.st_dev == there.st_dev &&
           held.st_ino == there.st_ino;
}

static err_t mesh_lock_open(const char *path, const char *run, int *fd, struct trouble *why)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd >= 0)
        return OK;
    if (errno == ENOENT)
        return trouble_set(why, ERR_OF(NO_MESH), "the mesh of %s was taken down meanwhile",
                           run);
    return trouble_errno(why, "%s", path);
}

err_t mesh_lock(const char *run, int *fd, struct trouble *why)
{
    char path[FILES_PATH_MAX];

    files_path(path, "%s/lock", run);
    TRY(mesh_lock_open(path, run, fd, why));
    for (unsigned tries = 0; tries < 600; tries++) {
        if (flock(*fd, LOCK_EX | LOCK_NB) == 0) {
            if (mesh_lock_is_at(*fd, path))
                return OK;
            close(*fd);
            TRY(mesh_lock_open(path, run, fd, why));
            continue;
        }
        if (errno != EWOULDBLOCK && errno != EINTR)
            break;
        (void)poll(NULL, 0, 50);
    }
    close(*fd);
    *fd = -1;
    return trouble_set(why, ERR_OF(NOT_READY), "%s is held by another weft command", path);
}

err_t mesh_is_same(const struct mesh *m, struct trouble *why)
{
    struct mesh now;
    err_t e = mesh_load(&now, m->run, why);

    if (e == ERR_OF(NO_MESH))
        return trouble_set(why, e, "the mesh of %s was taken down meanwhile", m->run);
    if (e == OK && (strcmp(now.state, m->state) != 0 || strcmp(now.net, m->net) != 0 ||
                    strcmp(now.plan.bridge_name, m->plan.bridge_name) != 0))
        e = trouble_set(why, ERR_OF(NOT_READY),
                        "another mesh was started with %s meanwhile: try again", m->run);
    return e;
}

bool mesh_supervisor(const struct mesh *m, struct proc_id *out)
{
    char path[FILES_PATH_MAX], text[PROC_ID_TEXT];
    struct trouble why;
    struct buf b;
    bool found;

    buf_init(&b, 0);
    found = files_path(path, "%s/supervisor.pid", m->run) &&
            files_read(path, sizeof text - 1, &b, &why) == OK &&
            slice_to_cstr(buf_slice(&b), text, sizeof text) && proc_parse(text, out) &&
            proc_is_alive(out);
    buf_done(&b);
    return found;
}

err_t mesh_need_root(const char *what, struct trouble *why)
{
    if (geteuid() == 0)
        return OK;
    return trouble_set(why, ERR_OF(USAGE), "%s needs root: it makes interfaces and namespaces",
                       what);
}
