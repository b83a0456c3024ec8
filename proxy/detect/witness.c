#include "proxy/detect/witness.h"

#include "proxy/detect/look.h"

#include <stdlib.h>
#include <string.h>

struct seen {
    uint16_t port;
    enum lesson lesson;
    uint8_t times[LESSON_SEVERAL]; /* evidence for each that is not part of the lesson yet */
};

struct witness {
    void (*tell)(void *arg, uint16_t port, enum lesson lesson);
    void *arg;
    unsigned n;
    struct seen ports[WITNESS_PORTS_MAX];
};

struct witness *witness_new(void (*tell)(void *arg, uint16_t port, enum lesson lesson), void *arg)
{
    struct witness *w = calloc(1, sizeof(*w));

    if (w != NULL) {
        w->tell = tell;
        w->arg = arg;
    }
    return w;
}

void witness_free(struct witness **w)
{
    free(*w);
    *w = NULL;
}

static enum lesson lesson_of(enum evidence e)
{
    switch (e) {
    case EVIDENCE_HTTP1:
        return LESSON_HTTP1;
    case EVIDENCE_HTTP2:
        return LESSON_HTTP2;
    case EVIDENCE_GRPC:
        return LESSON_GRPC;
    case EVIDENCE_SPOKE_FIRST:
    case EVIDENCE_CONVERSATION:
        return LESSON_OPAQUE;
    case EVIDENCE_NONE:
        break;
    }
    return LESSON_UNKNOWN;
}

static struct seen *find(struct witness *w, uint16_t port)
{
    for (unsigned i = 0; i < w->n; i++)
        if (w->ports[i].port == port)
            return &w->ports[i];
    return NULL;
}

void witness_saw(struct witness *w, uint16_t port, enum evidence e)
{
    enum lesson one = lesson_of(e), all;
    struct seen *s = find(w, port);

    if (one == LESSON_UNKNOWN || port == 0)
        return;
    if (s == NULL) {
        if (w->n == WITNESS_PORTS_MAX)
            return;
        s = &w->ports[w->n++];
        *s = (struct seen){.port = port};
    }
    all = lesson_join(s->lesson, one);
    if (all == s->lesson)
        return;
    s->times[one]++;
    if ((s->lesson != LESSON_UNKNOWN || e == EVIDENCE_CONVERSATION) &&
        s->times[one] < WITNESS_TIMES)
        return;
    s->lesson = all;
    w->tell(w->arg, port, all);
}

enum lesson witness_known(const struct witness *w, uint16_t port)
{
    for (unsigned i = 0; i < w->n; i++)
        if (w->ports[i].port == port)
            return w->ports[i].lesson;
    return LESSON_UNKNOWN;
}

/* ---- conversations ---- */

static void client_spoke(struct talk *t)
{
    t->client_went_on = t->has_answer;
    t->has_begun = true;
}

static bool server_spoke(struct talk *t, slice_t bytes, enum evidence *e)
{
    size_t n = bytes.n < TALK_HEAD - (size_t)t->n ? bytes.n : TALK_HEAD - (size_t)t->n;

    if (t->has_answer) {
        if (!t->client_went_on)
            return true; /* more of the same answer */
        *e = EVIDENCE_CONVERSATION;
        return false;
    }
    if (!t->has_begun)
        t->is_server_first = true;
    t->has_begun = true;
    memcpy(t->head + t->n, bytes.p, n);
    t->n = (uint8_t)(t->n + n);
    switch (look_answer(slice(t->head, t->n))) {
    case ANSWER_MORE:
        return true;
    case ANSWER_HTTP1:
        *e = EVIDENCE_HTTP1;
        return false;
    case ANSWER_HTTP2:
        *e = EVIDENCE_HTTP2;
        return false;
    case ANSWER_OTHER:
        break;
    }
    if (t->is_server_first) {
        *e = EVIDENCE_SPOKE_FIRST;
        return false;
    }
    /* A single answer may be a complaint about the client's bytes, of a server of any kind. */
    t->has_answer = true;
    return true;
}

bool talk_hears(struct talk *t, bool is_server, slice_t bytes, enum evidence *e)
{
    *e = EVIDENCE_NONE;
    if (bytes.n == 0)
        return true;
    if (is_server)
        return server_spoke(t, bytes, e);
    client_spoke(t);
    return true;
}
