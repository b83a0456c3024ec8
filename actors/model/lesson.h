/* What a port was seen to speak, put together from what several observers saw.
 *
 * Lessons only ever rise, whoever saw what in which order, so that nothing flaps:
 *
 *   UNKNOWN --> GRPC --> HTTP2 --> SEVERAL
 *           --> HTTP1 -----------> SEVERAL
 *           --> OPAQUE ----------> SEVERAL
 *
 * A lesson may only save time: nobody refuses or misreads a byte because of one. */
#ifndef MODEL_LESSON_H
#define MODEL_LESSON_H

#include <stdbool.h>
#include <stdint.h>

enum lesson {
    LESSON_UNKNOWN,
    LESSON_HTTP1, /* from here to OPAQUE the numbers of PROTOCOL_* */
    LESSON_HTTP2, /* gRPC and other things */
    LESSON_GRPC,  /* nothing but gRPC */
    LESSON_OPAQUE,
    LESSON_SEVERAL
};

/* What both together say; the order does not matter, and twice the same is the same. */
enum lesson lesson_join(enum lesson a, enum lesson b);

/* As in the messages spoken and learn and in the store, where 0 is SEVERAL and UNKNOWN is not said. False: no
 * protocol has this number. */
bool lesson_read(uint8_t protocol, enum lesson *out);

/* The number of PROTOCOL_*. 0 for SEVERAL and UNKNOWN: there is nothing to go by. */
uint8_t lesson_protocol(enum lesson l);

#endif
