/* The stable codes of what the mesh answers or refuses by itself (tbl/codes.h): one name for
 * logs, metrics, Proxy-Status, weft explain, and the status that goes with it. */
#ifndef MODEL_CODE_H
#define MODEL_CODE_H

#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum code {
    CODE_NONE, /* not the mesh's doing */
#define CODE(id, name, http, grpc, closes, proxy_status, what, remedy) CODE_##name,
#include "model/tbl/codes.h"
#undef CODE
    CODE_COUNT
};

struct code_info {
    const char *id;           /* "W1001" */
    const char *name;         /* "NO_ENDPOINT" */
    uint16_t http;            /* 0: cut the stream or connection instead */
    uint8_t grpc;             /* gRPC status */
    bool closes;              /* an HTTP/1.1 connection ends after the answer */
    const char *proxy_status; /* error type of RFC 9209, e.g. "connection_refused" */
    const char *what;         /* one sentence */
    const char *remedy;       /* what to do */
};

/* Never NULL; CODE_NONE and values outside of the enum give the entry of INTERNAL. */
const struct code_info *code_info(enum code code);

/* By id ("W1001", also "1001") or name, ASCII case ignored. CODE_NONE if there is none. */
enum code code_find(slice_t text);

/* The code for a reason of weft-tls (handshake_failed.code): "EXPIRED" -> CODE_EXPIRED; reasons
 * without a code of their own give CODE_TLS_FAILED. */
enum code code_of_tls(slice_t reason);

#endif
