/* A request and its response: from the front stream it came on to the back stream it is sent
 * on.
 *
 * exchange_begin makes one for a new front stream; everything else happens by events, and its
 * end gives it back to the worker's free list. exchange_priv.h draws the states. */
#ifndef PROXY_EXCHANGE_EXCHANGE_H
#define PROXY_EXCHANGE_EXCHANGE_H

struct front;
struct stream;
struct worker;

/* Sets the stream's events. Called by the codec's on_stream. Without memory the stream gets
 * events that refuse it. */
void exchange_begin(struct front *f, struct stream *s);

/* Frees the free list, at the end of the worker. Every exchange has ended with its connection.
 */
void exchange_free_all(struct worker *w);

#endif
