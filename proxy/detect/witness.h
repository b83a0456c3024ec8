/* What the applications of this pod were seen to do on their ports: the evidence from which everybody learns what a
 * port speaks. Only what an application did counts; a client may send what it likes.
 *
 * A port's lesson (model/lesson.h) only ever rises, and is told once per change. The first evidence of a port that
 * nothing is known of is enough, except that of a conversation, which takes WITNESS_TIMES; evidence against what is
 * known takes WITNESS_TIMES, too. */
#ifndef PROXY_DETECT_WITNESS_H
#define PROXY_DETECT_WITNESS_H

#include "kit/slice.h"
#include "model/lesson.h"

#define WITNESS_TIMES     3
#define WITNESS_PORTS_MAX 64 /* of others nothing is learned */

enum evidence {
    EVIDENCE_NONE,
    EVIDENCE_HTTP1, /* answered with a head of HTTP/1 */
    EVIDENCE_HTTP2, /* answered on HTTP/2, or sent its SETTINGS */
    EVIDENCE_GRPC,  /* answered application/grpc */
    EVIDENCE_SPOKE_FIRST,
    EVIDENCE_CONVERSATION /* the client spoke first, no HTTP, and was answered twice in turns */
};

struct witness; /* opaque */

/* `tell` is called from witness_saw whenever a port's lesson rises. NULL without memory. */
struct witness *witness_new(void (*tell)(void *arg, uint16_t port, enum lesson lesson), void *arg);
void witness_free(struct witness **w);
void witness_saw(struct witness *w, uint16_t port, enum evidence e);
enum lesson witness_known(const struct witness *w, uint16_t port);

/* ---- one connection whose bytes pass as they are ---- */

#define TALK_HEAD 9 /* bytes of an answer that tell it from one of HTTP */

struct talk { /* all zero at the beginning */
    bool has_begun, is_server_first, has_answer, client_went_on;
    uint8_t n;
    uint8_t head[TALK_HEAD];
};

/* The next bytes of one side. False: nothing more is to be learned, *e says what was (EVIDENCE_NONE: nothing). */
bool talk_hears(struct talk *t, bool is_server, slice_t bytes, enum evidence *e);

#endif
