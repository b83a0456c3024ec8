/* A request or response head, whatever the HTTP version: what the codecs make and the exchange decides on.
 *
 * Every slice points into memory of the stream's arena and lives as long as the stream's exchange.
 * Rule 0: a codec writes a head only from this parsed form; bytes of the peer are never passed through.
 */
#ifndef PROXY_HTTP_HEAD_H
#define PROXY_HTTP_HEAD_H

#include "kit/arena.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum http_version { HTTP_1_0 = 10, HTTP_1_1 = 11, HTTP_2 = 20 };

/* Field names that somebody in the proxy looks at; tbl/fields.h lists them with what they are. */
enum field_token {
    FIELD_OTHER,
#define FIELD(token, name, flags) FIELD_##token,
#include "proxy/http/tbl/fields.h"
#undef FIELD
    FIELD_TOKENS
};

enum field_flag {
    FIELD_IS_HOP = 1 << 0,       /* hop-by-hop: never forwarded as it is */
    FIELD_IS_MESH = 1 << 1,      /* belongs to the mesh: stripped when it comes from an application */
    FIELD_IS_FRAMING = 1 << 2,   /* Content-Length, Transfer-Encoding, Host: written by the codec from the head */
    FIELD_NOT_TRAILER = 1 << 3,  /* dropped from trailers (RFC 9110 6.5.1) */
    FIELD_PROTECTED = 1 << 4     /* a Connection header cannot name it away (hardening H1-34) */
};

/* How HTTP/1 writes a name (proxy/http/spelling.h). */
enum field_spelling {
    SPELLED_AS_IS,
    SPELLED_CANONICAL /* first letters of its words as capitals: the name itself is in lower case */
};

struct field {
    slice_t name; /* as it was written (HTTP/1) or lower case (HTTP/2) */
    slice_t value;
    uint16_t token; /* enum field_token */
    bool is_removed; /* skipped when the head is written */
    bool is_sensitive; /* came as "never indexed" (RFC 7541 7.1.3) and is written so */
    uint8_t spelling; /* enum field_spelling */
    char look;        /* what spelling_name_prefix said of the name, which is a token then; 0: nobody looked */
};

/* Case-insensitive; FIELD_OTHER if nobody looks at it. */
enum field_token field_token_of(slice_t name);
unsigned field_flags(enum field_token token);
slice_t field_name_of(enum field_token token); /* lower case */

struct head {
    enum http_version version; /* as received */

    /* request */
    slice_t method;
    slice_t scheme;    /* "http" unless said otherwise */
    slice_t authority; /* Host, or of the absolute form, or :authority; may be empty (HTTP/1.0) */
    slice_t path;      /* origin form with query; "*" for OPTIONS; empty for CONNECT */
    bool is_absolute_form;
    bool is_connect;
    bool is_idempotent;    /* GET HEAD OPTIONS TRACE PUT DELETE, or it has an Idempotency-Key */
    bool expects_continue; /* Expect: 100-continue */

    /* response */
    uint16_t status;
    slice_t reason; /* HTTP/1 only, may be empty */

    /* both */
    struct field *fields;
    size_t n_fields, cap_fields;
    int64_t content_length; /* -1: not stated */
    bool is_chunked;        /* HTTP/1 as received */
    bool is_keep_alive;     /* HTTP/1: the peer wants the connection kept; an answer sent without it ends the connection */
    slice_t upgrade;        /* HTTP/1.1 Upgrade with Connection: upgrade (never h2c); empty: none */
    bool is_grpc;           /* content-type starts with application/grpc */
    bool accepts_trailers;  /* TE: trailers */
    bool is_canonical;      /* names that HTTP/1 adds of its own (Host, Connection...) get capitals */
};

void head_init(struct head *h); /* no fields, no length stated, scheme http, keep-alive */
/* Appends; name and value are borrowed (must live in the arena or be static). NOMEM if arena is full. */
MUST_USE err_t head_add(struct head *h, struct arena *a, slice_t name, slice_t value);
/* The first field with the token that is not removed, or NULL. */
struct field *head_find(const struct head *h, enum field_token token);
struct field *head_find_name(const struct head *h, slice_t name);
void head_remove(struct head *h, enum field_token token);
void head_remove_name(struct head *h, slice_t name);
/* Replaces all fields of that name by one. */
MUST_USE err_t head_set(struct head *h, struct arena *a, slice_t name, slice_t value);
/* Marks as removed: Connection and what it lists (unless protected), Keep-Alive, Proxy-Connection, Upgrade, TE (but TE:
 * trailers is remembered in accepts_trailers), Transfer-Encoding, HTTP2-Settings. */
void head_strip_hop_by_hop(struct head *h);
/* A deep copy into another arena. */
MUST_USE err_t head_copy(const struct head *from, struct arena *a, struct head *out);

/* RFC 9110 5.1/5.5 grammars, used by both codecs before anything is believed or written. */
bool http_is_token(slice_t s);
size_t http_token_prefix(slice_t s); /* how many bytes at its front are a token */
size_t http_value_prefix(slice_t s); /* how many are no CTL but HTAB: the length of a field value and the blanks around it */
bool http_is_field_value(slice_t s); /* no CTL but HTAB, no leading or trailing blank */
bool http_is_authority(slice_t s);   /* host[:port], no userinfo, no blanks, sane brackets */
bool http_is_path(slice_t s);        /* origin form or "*"; no blank, CTL, '#', byte >= 0x80 */
/* Names that a careless reader behind us takes for framing: "_" for "-" in those of the two (H1-16). */
bool http_is_framing_twin(slice_t name);

#endif
