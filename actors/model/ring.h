/* Consistent hashing: which endpoint a key belongs to. The proxy's balancer and `weft route`
 * ask this file, so that both name the same one.
 *
 * Weighted rendezvous hashing: every endpoint draws a score from its own identity and the key,
 * and the lowest score wins. It needs no table, so it is right for any subset (only those that
 * are ready, say) and nothing is rebuilt when endpoints change. When one goes away only its own
 * keys move, to all others by their weights; when one comes, it takes its share from all others
 * and no key moves between those; a changed weight moves keys only to or from that endpoint.
 * Shares are exact, not a matter of how many points a circle has. The price is one step per
 * endpoint and request (a few ns).
 *
 * Scores are the same in every process on every machine. */
#ifndef MODEL_RING_H
#define MODEL_RING_H

#include "wire/wire.h"

#include "kit/slice.h"

#define RING_NONE SIZE_MAX

/* What an endpoint is to the hash: its address and port, nothing else, so that a new identity
 * or zone moves no key. */
uint64_t ring_id(slice_t ip, uint16_t port);

/* A key: the header's or cookie's value, or the source's address as text without port. */
uint64_t ring_key(slice_t value);

/* The score of an endpoint for a key; lowest wins, equal scores go to the lower id. `weight` is
 * relative (10000 is normal); 0 gives a score that is never chosen while another one is above 0
 * (HUGE_VAL). */
double ring_score(uint64_t id, uint32_t weight, uint64_t key);

/* The index of the endpoint that has the key, of those `may` lets through (NULL: all);
 * RING_NONE if there is none with a weight. A caller with endpoints of its own keeps their
 * ring_id and takes the lowest ring_score: that is all this does. */
size_t ring_pick(const struct wire_endpoint *endpoints, size_t n, uint64_t key,
                 bool (*may)(void *arg, size_t index), void *arg);

#endif
