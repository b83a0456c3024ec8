#include "broker/control/topics.h"

#include "broker/control/desk.h"
#include "broker/control/views.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "wire/topic.h"

#include <stdlib.h>

#define COMPUTED_PER_TURN 32u
#define TURN_MS           0u
#define DIGEST_PART       2048u /* topics, as wire: digest.topics */

/* ---- life ---- */

static struct topic *topic_find(struct control *c, slice_t name)
{
    struct topic *t = NULL;
    HASH_FIND(hh, c->topics, name.p, name.n, t);
    return t;
}

static void topic_free(struct control *c, struct topic *t)
{
    HASH_DEL(c->topics, t);
    list_del(&t->dirty);
    free(t->payload);
    free(t);
}

static struct topic *topic_new(struct control *c, slice_t name)
{
    struct topic *t = calloc(1, sizeof *t);
    if (t == NULL || !slice_to_cstr(name, t->name, sizeof t->name)) {
        free(t);
        return NULL;
    }
    t->hash = wire_topic_hash(name);
    list_init(&t->dirty);
    list_init(&t->watches);
    HASH_ADD(hh, c->topics, name[0], name.n, t);
    return t;
}

/* ---- computing ---- */

static void publish_hint(struct control *c, const struct topic *t)
{
    const struct wire_hint hint = {.epoch = mesh_epoch(c->mesh),
                                   .mesh_revision = mesh_revision(c->mesh),
                                   .topic = slice_str(t->name),
                                   .revision = t->revision};
    c->count.hints++;
    /* A hint that is not sent is repaired by the next digest. */
    CONTROL_SEND(c, c->updates, slice_str(t->name), hint, &hint);
}

static void set_revision(struct topic *t, uint64_t revision)
{
    uint64_t gone = wire_topic_mix(t->hash, t->revision);
    t->revision = revision;
    LIST_EACH (it, &t->watches) {
        struct session *s = CONTAINER_OF(it, struct watch, of_topic)->session;
        s->want += wire_topic_mix(t->hash, revision) - gone;
    }
}

/* Said once for a topic, when it begins to be true. */
static void note_cut(struct control *c, struct topic *t, const struct view_cut *now)
{
    if (t->cut.whole == 0 && now->whole != 0) {
        c->count.topics_cut++;
        log_warn("view too large for a message", "topic=%s left_out=%u", t->name,
                 now->left_out);
        control_event(c, "VIEW_CUT", t->name,
                      "more endpoints than fit a message: each pod knows a part of them, %u "
                      "are left out",
                      now->left_out);
    }
    t->cut = *now;
}

/* True if the payload is new. Keeps the old one when the new one cannot be made. */
static bool compute(struct control *c, struct topic *t)
{
    struct buf out;
    struct view_cut cut = {0};
    bool is_new = false;
    buf_init(&out, WIRE_MESSAGE_MAX);
    c->count.topics_computed++;
    err_t e = views_compute(c, slice_str(t->name), SLICE_LIT(""), &cut, &out);
    slice_t fresh = buf_slice(&out);
    if (e != OK) {
        log_warn("topic not computed", "topic=%s error=%s", t->name, e->name);
    } else if (t->payload == NULL || cut.whole != t->cut.whole ||
               !slice_is(fresh, slice(t->payload, t->n_payload))) {
        uint8_t *copy = malloc(fresh.n != 0 ? fresh.n : 1);
        if (copy != NULL) {
            memcpy(copy, fresh.p, fresh.n);
            free(t->payload);
            t->payload = copy;
            t->n_payload = fresh.n;
            is_new = true;
        }
    }
    if (e == OK)
        note_cut(c, t, &cut);
    buf_done(&out);
    return is_new;
}

slice_t topics_payload(struct control *c, const struct topic *t, const struct session *s,
                       struct buf *own)
{
    struct view_cut cut = {.max = t->cut.max};
    buf_init(own, WIRE_MESSAGE_MAX);
    if (t->cut.whole != 0 &&
        views_compute(c, slice_str(t->name), slice_str(s->name), &cut, own) == OK)
        return buf_slice(own);
    return slice(t->payload, t->n_payload);
}

void topics_settle(struct control *c)
{
    uint64_t now = mesh_revision(c->mesh);
    if (!list_is_empty(&c->dirty) || c->settled == now)
        return;
    c->settled = now;
    desk_look_at_waits(c);
}

static void run_some(struct control *c, unsigned budget)
{
    while (budget-- > 0 && !list_is_empty(&c->dirty)) {
        struct topic *t = CONTAINER_OF(c->dirty.next, struct topic, dirty);
        list_del(&t->dirty);
        t->is_dirty = false;
        if (compute(c, t)) {
            set_revision(t, mesh_revision(c->mesh));
            publish_hint(c, t);
        }
    }
    topics_settle(c);
}

static void on_dirty_turn(void *arg)
{
    struct control *c = arg;
    run_some(c, COMPUTED_PER_TURN);
    if (!list_is_empty(&c->dirty))
        timer_once(&c->dirty_turn, TURN_MS);
}

void topics_run_dirty(struct control *c)
{
    while (!list_is_empty(&c->dirty))
        run_some(c, COMPUTED_PER_TURN);
    topics_settle(c);
}

static void mark(struct control *c, struct topic *t)
{
    if (t->is_dirty)
        return;
    t->is_dirty = true;
    list_push(&c->dirty, &t->dirty);
    if (!timer_is_armed(&c->dirty_turn))
        timer_once(&c->dirty_turn, TURN_MS);
}

void topics_mark(struct control *c, const char *name)
{
    struct topic *t = topic_find(c, slice_str(name));
    if (t != NULL)
        mark(c, t);
}

void topics_mark_text(struct control *c, const char *text)
{
    size_t n = strlen(text);
    struct topic *t, *next;
    HASH_ITER(hh, c->topics, t, next)
    if (n != 0 && !t->is_dirty &&
        (strstr(t->name, text) != NULL ||
         (t->payload != NULL && memmem(t->payload, t->n_payload, text, n) != NULL)))
        mark(c, t);
}

void topics_mark_all(struct control *c)
{
    struct topic *t, *next;
    HASH_ITER(hh, c->topics, t, next)
    mark(c, t);
}

/* ---- watching ---- */

struct topic *topics_of(struct control *c, const struct session *s, slice_t name)
{
    struct topic *t = topic_find(c, name);
    if (t == NULL)
        return NULL;
    LIST_EACH (it, &s->watches)
        if (CONTAINER_OF(it, struct watch, of_session)->topic == t)
            return t;
    return NULL;
}

err_t topics_watch(struct control *c, struct session *s, slice_t name, struct topic **out)
{
    *out = topics_of(c, s, name);
    if (*out != NULL)
        return OK;
    if (!views_may_watch(s, name))
        return ERR_OF(BAD_TOPIC);
    if (s->n_watches >= CONTROL_MAX_WATCHES || HASH_COUNT(c->topics) >= CONTROL_MAX_TOPICS)
        return ERR_OF(TOO_MANY_TOPICS);
    struct watch *w = calloc(1, sizeof *w);
    struct topic *t = topic_find(c, name);
    bool is_first = t == NULL;
    if (is_first)
        t = topic_new(c, name);
    if (w == NULL || t == NULL) {
        if (is_first && t != NULL)
            topic_free(c, t);
        free(w);
        return ERR_OF(NOMEM);
    }
    if (is_first && compute(c, t))
        set_revision(t, mesh_revision(c->mesh));
    w->session = s;
    w->topic = t;
    list_push(&s->watches, &w->of_session);
    list_push(&t->watches, &w->of_topic);
    s->n_watches++;
    s->want += wire_topic_mix(t->hash, t->revision);
    *out = t;
    return OK;
}

static void watch_end(struct control *c, struct watch *w)
{
    struct topic *t = w->topic;
    w->session->want -= wire_topic_mix(t->hash, t->revision);
    w->session->n_watches--;
    list_del(&w->of_session);
    list_del(&w->of_topic);
    free(w);
    if (list_is_empty(&t->watches))
        topic_free(c, t);
}

void topics_unwatch(struct control *c, struct session *s, slice_t name)
{
    LIST_EACH_SAFE (it, &s->watches) {
        struct watch *w = CONTAINER_OF(it, struct watch, of_session);
        if (slice_is_str(name, w->topic->name)) {
            watch_end(c, w);
            return;
        }
    }
}

void topics_unwatch_all(struct control *c, struct session *s)
{
    LIST_EACH_SAFE (it, &s->watches)
        watch_end(c, CONTAINER_OF(it, struct watch, of_session));
    s->want = 0;
}

bool topics_is_caught_up(struct control *c, struct session *s)
{
    if (s->state != SESSION_LIVE || s->want != s->have)
        return false;
    if (s->acked < c->settled) {
        s->acked = c->settled;
        s->is_dirty_note = true;
    }
    return true;
}

/* ---- digests ---- */

static void send_digest(struct control *c, unsigned part, unsigned parts,
                        struct wire_topic_digest *list, size_t n)
{
    const struct wire_digest digest = {.epoch = mesh_epoch(c->mesh),
                                       .mesh_revision = c->settled,
                                       .part = (uint16_t)part,
                                       .parts = (uint16_t)parts,
                                       .n_topics = n,
                                       .topics = list};
    c->count.digests++;
    CONTROL_SEND(c, c->updates, SLICE_LIT("digest"), digest, &digest);
}

void topics_publish_digest(struct control *c)
{
    struct wire_topic_digest list[DIGEST_PART];
    unsigned n = 0, part = 0;
    unsigned parts = (HASH_COUNT(c->topics) + DIGEST_PART - 1) / DIGEST_PART;
    struct topic *t, *next;
    HASH_ITER(hh, c->topics, t, next)
    {
        list[n++] = (struct wire_topic_digest){.hash = t->hash, .revision = t->revision};
        if (n == DIGEST_PART) {
            send_digest(c, part++, parts, list, n);
            n = 0;
        }
    }
    if (n != 0 || parts == 0)
        send_digest(c, part, parts != 0 ? parts : 1, list, n);
}

static void on_digest(void *arg)
{
    topics_publish_digest(arg);
}

void topics_init(struct control *c)
{
    list_init(&c->dirty);
    c->settled = mesh_revision(c->mesh);
    timer_init(&c->dirty_turn, c->base, on_dirty_turn, c);
    timer_init(&c->digest_tick, c->base, on_digest, c);
    timer_every(&c->digest_tick, c->set->digest_interval);
}

void topics_free(struct control *c)
{
    struct topic *t, *next;
    timer_stop(&c->dirty_turn);
    timer_stop(&c->digest_tick);
    HASH_ITER(hh, c->topics, t, next)
    topic_free(c, t);
}
