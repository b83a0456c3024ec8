#include "model/lesson.h"

#include "model/resource.h"

_Static_assert((int)LESSON_HTTP1 == (int)PROTOCOL_HTTP1 && (int)LESSON_HTTP2 == (int)PROTOCOL_HTTP2 &&
                   (int)LESSON_GRPC == (int)PROTOCOL_GRPC &&
                   (int)LESSON_OPAQUE == (int)PROTOCOL_OPAQUE,
               "lessons have the numbers of protocols");

enum lesson lesson_join(enum lesson a, enum lesson b)
{
    if (a == b || b == LESSON_UNKNOWN)
        return a;
    if (a == LESSON_UNKNOWN)
        return b;
    if ((a == LESSON_GRPC || a == LESSON_HTTP2) && (b == LESSON_GRPC || b == LESSON_HTTP2))
        return LESSON_HTTP2;
    return LESSON_SEVERAL;
}

bool lesson_read(uint8_t protocol, enum lesson *out)
{
    if (protocol >= PROTOCOLS)
        return false;
    *out = protocol == PROTOCOL_DETECT ? LESSON_SEVERAL : (enum lesson)protocol;
    return true;
}

uint8_t lesson_protocol(enum lesson l)
{
    return l == LESSON_SEVERAL ? PROTOCOL_DETECT : (uint8_t)l;
}
