/* Manifests in, outcomes out. */
#include "cli/changes.h"

#include "model/manifest.h"
#include "model/resource.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_OBJECTS 64
#define BATCH_BYTES   (200u << 10) /* of the 256 KiB of a message */

/* ---- reading ---- */

/* A person's own file: links and pipes are fine here. */
static err_t changes_read_fd(int fd, const char *file, struct buf *b, struct trouble *why)
{
    for (;;) {
        char chunk[16384];
        ssize_t n = read(fd, chunk, sizeof chunk);

        if (n == 0)
            return OK;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return trouble_errno(why, "%s", file);
        if (buf_add(b, chunk, (size_t)n) != OK)
            return trouble_set(why, ERR_OF(TOO_BIG), "%s: more than 4 MiB", file);
    }
}

/* Gives an object without a namespace the one of the command line. */
static void changes_set_namespace(json_t *o, const char *ns)
{
    json_t *meta = json_object_get(o, "metadata");

    if (json_is_object(meta) && json_object_get(meta, "namespace") == NULL)
        (void)json_object_set_new(meta, "namespace", json_string(ns));
}

static bool changes_check(const char *file, const struct manifest *m, size_t i,
                          const struct changes_conf *conf)
{
    char kind[65], ns[64], name[254], text[WHY_TEXT];
    const json_t *o = m->objects[i].json;
    struct why reason = {.path = ""};
    struct resource *r = NULL;
    unsigned line;

    if (conf->is_delete) {
        if (resource_identify(o, slice_str(conf->ns), kind, ns, name))
            return true;
        fprintf(stderr, "%s:%u: kind or metadata.name is missing\n", file, m->objects[i].line);
        return false;
    }
    if (resource_parse(o, slice_str(conf->ns), &r, &reason) == OK) {
        for (size_t n = 0; n < r->n_notes; n++)
            fprintf(stderr, "%s:%u: note: %s\n", file, m->objects[i].line, r->notes[n]);
        resource_free(&r);
        return true;
    }
    line = manifest_line(m, i, reason.path);
    why_text(&reason, text);
    fprintf(stderr, "%s:%u: %s\n", file, line != 0 ? line : m->objects[i].line, text);
    return false;
}

static err_t changes_parse(const char *file, slice_t bytes, const struct changes_conf *conf,
                           json_t *objects, size_t *bad, struct trouble *why)
{
    char text[WHY_TEXT];
    struct why reason = {.path = ""};
    struct manifest *m = NULL;
    err_t e = manifest_parse(bytes, &m, &reason);

    if (e != OK) {
        why_text(&reason, text);
        return trouble_set(why, e, "%s:%u: %s", file, reason.line, text);
    }
    for (size_t i = 0; i < m->n; i++) {
        changes_set_namespace(m->objects[i].json, conf->ns);
        if (!changes_check(file, m, i, conf))
            ++*bad;
        else
            (void)json_array_append(objects, m->objects[i].json);
    }
    manifest_free(&m);
    return OK;
}

err_t changes_read(const char *file, const struct changes_conf *conf, json_t *objects,
                   size_t *bad, struct trouble *why)
{
    bool is_stdin = strcmp(file, "-") == 0;
    int fd = is_stdin ? 0 : open(file, O_RDONLY | O_CLOEXEC);
    struct buf b;
    err_t e;

    if (fd < 0)
        return trouble_errno(why, "%s", file);
    if (is_stdin)
        file = "standard input";
    buf_init(&b, MANIFEST_TEXT);
    e = changes_read_fd(fd, file, &b, why);
    if (e == OK)
        e = changes_parse(file, buf_slice(&b), conf, objects, bad, why);
    buf_done(&b);
    if (!is_stdin)
        close(fd);
    return e;
}

/* ---- sending ---- */

struct changes_batch {
    struct wire_object objects[BATCH_OBJECTS];
    char *texts[BATCH_OBJECTS]; /* owned; what json points to */
    char names[BATCH_OBJECTS][3][256];
    size_t n, bytes;
};

static void changes_batch_empty(struct changes_batch *b)
{
    for (size_t i = 0; i < b->n; i++)
        free(b->texts[i]);
    b->n = b->bytes = 0;
}

/* False: it does not fit into this batch any more. */
static bool changes_batch_add(struct changes_batch *b, const json_t *o,
                              const struct changes_conf *conf)
{
    char *text = conf->is_delete ? NULL : json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
    size_t len = text != NULL ? strlen(text) : 0;
    struct wire_object *w = &b->objects[b->n];
    char(*names)[256] = b->names[b->n];

    if (b->n == BATCH_OBJECTS || (b->n > 0 && b->bytes + len > BATCH_BYTES)) {
        free(text);
        return false;
    }
    if (!resource_identify(o, slice_str(conf->ns), names[0], names[1], names[2]))
        names[0][0] = names[1][0] = names[2][0] = '\0';
    *w = (struct wire_object){.kind = slice_str(names[0]),
                              .namespace = slice_str(names[1]),
                              .name = slice_str(names[2]),
                              .json = slice_str(text)};
    b->texts[b->n++] = text;
    b->bytes += len;
    return true;
}

static const char *changes_word(uint8_t result, bool is_dry)
{
    static const char *const words[] = {"created", "changed", "unchanged",
                                        "deleted", "refused", "not found"};
    static const char *const dry[] = {"would be created", "would be changed", "unchanged",
                                      "would be deleted", "refused",          "not found"};

    if (result >= sizeof words / sizeof words[0])
        return "unknown";
    return is_dry ? dry[result] : words[result];
}

/* Prints what became of each object; returns how many were not taken. */
static size_t changes_outcomes(const struct wire_applied_objects *a,
                               const struct changes_conf *conf)
{
    size_t bad = 0;

    for (size_t i = 0; i < a->n_outcomes; i++) {
        const struct wire_outcome *o = &a->outcomes[i];
        bool is_bad = o->result == 4 || (o->result == 5 && conf->is_delete);

        bad += is_bad ? 1 : 0;
        if (is_bad)
            fprintf(stderr, "%.*s %s%s%.*s\n", SLICE_FMT(o->object),
                    changes_word(o->result, conf->is_dry), o->why.n > 0 ? ": " : "",
                    SLICE_FMT(o->why));
        else if (!conf->is_quiet)
            printf("%.*s %s\n", SLICE_FMT(o->object), changes_word(o->result, conf->is_dry));
        if (!is_bad && o->why.n > 0) /* taken, but something of it is not followed */
            fprintf(stderr, "note: %.*s: %.*s\n", SLICE_FMT(o->object), SLICE_FMT(o->why));
    }
    return bad;
}

static err_t changes_ask(struct client *c, const struct changes_conf *conf,
                         struct changes_batch *b, uint64_t *revision, size_t *bad,
                         struct trouble *why)
{
    const struct wire_msg *answer;
    char author[128];
    struct wire_apply apply;
    struct wire_delete_ del;

    client_author(author);
    apply = (struct wire_apply){.author = slice_str(author),
                                .reason = slice_str(conf->reason),
                                .is_dry = conf->is_dry,
                                .n_objects = b->n,
                                .objects = b->objects};
    del = (struct wire_delete_){.author = slice_str(author),
                                .reason = slice_str(conf->reason),
                                .n_objects = b->n,
                                .objects = b->objects};
    if (conf->is_delete)
        TRY(client_ask(c, WIRE_delete_, &del, WIRE_applied_objects, CLIENT_WAIT_MS, &answer,
                       why));
    else
        TRY(client_ask(c, WIRE_apply, &apply, WIRE_applied_objects, CLIENT_WAIT_MS, &answer,
                       why));
    *revision = answer->body.applied_objects.revision;
    *bad += changes_outcomes(&answer->body.applied_objects, conf);
    return OK;
}

/* The broker answers at the deadline at the latest; we give it two seconds more. */
static err_t changes_wait(struct client *c, const struct changes_conf *conf, uint64_t revision,
                          struct trouble *why)
{
    struct wire_wait ask = {.revision = revision, .wait_ms = (uint32_t)conf->wait_ms};
    const struct wire_msg *answer;
    const struct wire_waited *w;
    char who[400] = "";

    TRY(client_ask(c, WIRE_wait, &ask, WIRE_waited, (uint32_t)conf->wait_ms + 2000, &answer,
                   why));
    w = &answer->body.waited;
    if (w->n_laggards == 0) {
        if (!conf->is_quiet)
            printf("applied by all %" PRIu32 " pods (revision %" PRIu64 ")\n", w->sessions,
                   revision);
        return OK;
    }
    for (size_t i = 0; i < w->n_laggards; i++) {
        size_t n = strlen(who);

        (void)snprintf(who + n, sizeof who - n,
                       "%s%.*s (has %" PRIu64 ", heard %" PRIu32 " ms ago)", n > 0 ? ", " : "",
                       SLICE_FMT(w->laggards[i].pod), w->laggards[i].revision,
                       w->laggards[i].age_ms);
    }
    return trouble_set(why, ERR_OF(NOT_READY),
                       "%zu of %" PRIu32 " pods have not applied revision %" PRIu64 ": %s",
                       w->n_laggards, w->sessions, revision, who);
}

/* What was taken is waited for although something else was not. */
static err_t changes_send_all(struct client *c, const struct changes_conf *conf,
                              const json_t *objects, size_t bad, struct changes_batch *b,
                              struct trouble *why)
{
    uint64_t revision = 0;
    size_t i = 0, all = json_array_size(objects) + bad;

    while (i < json_array_size(objects)) {
        changes_batch_empty(b);
        while (i < json_array_size(objects) &&
               changes_batch_add(b, json_array_get(objects, i), conf))
            i++;
        TRY(changes_ask(c, conf, b, &revision, &bad, why));
    }
    if (conf->is_wait && !conf->is_dry && revision != 0)
        TRY(changes_wait(c, conf, revision, why));
    if (bad > 0)
        return trouble_set(why, ERR_OF(REFUSED), "%zu of %zu objects were not taken", bad, all);
    return OK;
}

err_t changes_send(const char *run, const struct changes_conf *conf, const json_t *objects,
                   size_t bad, struct trouble *why)
{
    struct changes_batch *b;
    struct client *c = NULL;
    struct mesh m;
    err_t e;

    if (json_array_size(objects) == 0 && bad > 0)
        return trouble_set(why, ERR_OF(REFUSED), "%zu of %zu objects were not taken", bad, bad);
    b = calloc(1, sizeof *b);
    e = b == NULL ? trouble_set(why, ERR_OF(NOMEM), "out of memory")
                  : client_begin(run, &m, &c, why);

    if (e == OK)
        e = changes_send_all(c, conf, objects, bad, b, why);
    client_close(&c);
    if (b != NULL)
        changes_batch_empty(b);
    free(b);
    return e;
}
