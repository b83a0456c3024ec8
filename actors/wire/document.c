#include "wire/document.h"

#include "wire/descriptor.h"
#include "wire/sample.h"

/* The words of the table, which the descriptors leave out: only this page needs them. */
struct line {
    enum { LINE_RECORD, LINE_MESSAGE, LINE_FIELD, LINE_END } what;
    const char *name, *doc, *type;
    unsigned code, version;
    const char *from, *to, *record;
    unsigned long max;
};

/* clang-format off */
static const struct line lines[] = {
#define RECORD(name, doc) {LINE_RECORD, #name, doc, "", 0, 0, "", "", "", 0},
#define MESSAGE(name, code, version, from, to, doc)                                                \
    {LINE_MESSAGE, #name, doc, "", code, version, #from, #to, "", 0},
#define PLAIN(name, type, doc)       {LINE_FIELD, #name, doc, type, 0, 0, "", "", "", 0},
#define U8(name, doc)                PLAIN(name, "U8", doc)
#define U16(name, doc)               PLAIN(name, "U16", doc)
#define U32(name, doc)               PLAIN(name, "U32", doc)
#define U64(name, doc)               PLAIN(name, "U64", doc)
#define I64(name, doc)               PLAIN(name, "I64", doc)
#define BOOL(name, doc)              PLAIN(name, "BOOL", doc)
#define TEXT(name, max, doc)         {LINE_FIELD, #name, doc, "TEXT", 0, 0, "", "", "", max},
#define BYTES(name, max, doc)        {LINE_FIELD, #name, doc, "BYTES", 0, 0, "", "", "", max},
#define LIST(name, record, max, doc) {LINE_FIELD, #name, doc, "LIST", 0, 0, "", "", #record, max},
#define END(name)                    {LINE_END, #name, "", "", 0, 0, "", "", "", 0},
#include "wire/messages.def"
};
#define N_LINES (sizeof(lines) / sizeof(lines[0]))

/* One section per conversation: the high byte of its codes. */
static const struct section {
    unsigned high;
    const char *title, *text;
} sections[] = {
    {0x01, "Proxy and TLS: one handshake",
     "weft-proxy holds sockets and no keys, weft-tls holds keys and no sockets. The proxy sends the "
     "bytes of a handshake as they come and writes what comes back; the end is `handshake_done` with "
     "the traffic secrets, from where on the proxy protects records itself, or `handshake_failed`. "
     "Socket: `tls.sock` of the pod."},
    {0x02, "Proxy and retry: a failed attempt",
     "The proxy keeps the request, weft-retry keeps the budgets. `retry_ask` is answered with "
     "`retry_go` or `retry_stop`, unless it is cancelled. Nothing is asked for a request that "
     "succeeds; `retry_settle` tells the budget about those in bulk. Socket: `retry.sock`."},
    {0x03, "Inside the pod: what the mesh looks like",
     "weft-link holds the pod's view of the mesh; the proxy resolves targets through it and weft-tls "
     "gets its certificate and the trust anchors through it. Views are pushed again at every change. "
     "Socket: `link.sock`."},
    {0x04, "Link and broker: the session",
     "Over CURVE on TCP 8086 (requests) and 8087 (hints and digests). A hint is never the truth: it "
     "tells the link to `fetch`. The link acknowledges the revision that its pod has put in force."},
    {0x05, "Broker and authority: identity",
     "The authority holds the issuer's key and nothing else; only the broker may talk to it. Socket: "
     "`authority.sock` of the control plane."},
    {0x06, "Everybody and telemetry: what happened",
     "Values are cumulative, so that a lost message loses nothing. Socket: `telemetry.sock`."},
    {0x07, "Command line and broker",
     "What `weft apply`, `weft get`, `weft token` and the like send. Socket: `broker.sock`, open to "
     "root and the broker's own user only."},
};
#define N_SECTIONS (sizeof(sections) / sizeof(sections[0]))

static const char intro[] =
    "# Messages between Weft's processes\n"
    "\n"
    "This page is printed by `weft-wire-doc` from `actors/wire/messages.def`; a test compares the two. "
    "It is for those who work on Weft or want to look over its shoulder. The feed for programs of your "
    "own is another one, with plain maps: see feed.md.\n"
    "\n"
    "## How a message looks\n"
    "\n"
    "A message is one ZeroMQ frame with one [msgpack](https://msgpack.org) array:\n"
    "\n"
    "    [code, version, field, field, ...]\n"
    "\n"
    "The fields come in the order of the tables below, without names. At most 262144 bytes.\n"
    "\n"
    "| type | msgpack | in C | accepted |\n"
    "|---|---|---|---|\n"
    "| U8, U16, U32, U64 | integer | uint8_t ... uint64_t | any integer format, if the value fits |\n"
    "| I64 | integer | int64_t | the same |\n"
    "| BOOL | true, false | bool | nothing else |\n"
    "| TEXT n | str | slice_t | at most n bytes, UTF-8, no NUL |\n"
    "| BYTES n | bin | slice_t | at most n bytes |\n"
    "| LIST of record, n | array of arrays | pointer and count | at most n records; a record is the array of "
    "its fields |\n"
    "\n"
    "**What is refused.** A code that is not on this page, a sender or receiver whose role is not the "
    "one stated, a wrong type, a number out of range, a text over its limit, a count that claims more "
    "elements than there are bytes, bytes left behind the array. A refused message is dropped whole "
    "before anything of it is used, counted by reason, and logged the first time and then once a "
    "minute; the connection stays.\n"
    "\n"
    "**Versions.** Fields are only ever added at the end of a message or record, and the message's "
    "version is raised then. A receiver reads an older version with the missing fields as zero or "
    "empty, and skips the further fields of a newer one. With equal versions the number of fields must "
    "be exact. Codes are never used again for something else.\n"
    "\n"
    "**Requests** carry an `id`, which the answer echoes. Times are milliseconds unless the name says "
    "otherwise; `wall` times count from 1970 UTC.\n"
    "\n"
    "**Roles.** PROXY weft-proxy, TLS weft-tls, RETRY weft-retry, LINK weft-link, TELEMETRY "
    "weft-telemetry, BROKER weft-broker, AUTHORITY weft-authority, CLI the command `weft`. ANY is "
    "each of them, BOTH_X_Y either of the two.\n"
    "\n";

/* clang-format on */

static err_t put_field(struct buf *out, const struct line *f)
{
    TRY(buf_printf(out, "| %s | ", f->name));
    if (f->record[0] != '\0')
        TRY(buf_printf(out, "LIST of [%s](#record-%s), %lu", f->record, f->record, f->max));
    else if (f->max != 0)
        TRY(buf_printf(out, "%s %lu", f->type, f->max));
    else
        TRY(buf_printf(out, "%s", f->type));
    if (f->doc[0] == '\0' && strcmp(f->name, "id") == 0)
        return buf_printf(out, " | number of the request; its answer has the same |\n");
    return buf_printf(out, " | %s |\n", f->doc);
}

/* The fields behind lines[at], which is the head of a record or message. */
static err_t put_fields(struct buf *out, size_t at)
{
    TRY(buf_printf(out, "| field | type | meaning |\n|---|---|---|\n"));
    for (size_t i = at + 1; lines[i].what == LINE_FIELD; i++)
        TRY(put_field(out, &lines[i]));
    return buf_printf(out, "\n");
}

/* A short real message in hex, so that whoever debugs has something to compare with. */
static err_t put_example(struct buf *out, unsigned code)
{
    struct wire_sample_how how = {.seed = 7, .list_max = 1, .text_max = 6, .is_full = false};
    AUTO(buf_done) struct buf bytes;
    AUTO(arena_done) struct arena arena;
    union wire_body body;
    slice_t s;

    memset(&body, 0, sizeof(body));
    buf_init(&bytes, 0);
    arena_init(&arena, 0);
    TRY(wire_sample(wire_desc_of(code), &how, &arena, &body));
    TRY(wire_encode((enum wire_code)code, &body, &bytes));
    s = buf_slice(&bytes);
    if (s.n > 48)
        return OK;
    TRY(buf_printf(out, "Example:"));
    for (size_t i = 0; i < s.n; i++)
        TRY(buf_printf(out, "%s%02x", i % 4 == 0 ? " " : "", s.p[i]));
    return buf_printf(out, "\n\n");
}

static err_t put_message(struct buf *out, size_t at)
{
    const struct line *m = &lines[at];

    TRY(buf_printf(out, "### message %s\n\n", m->name));
    TRY(buf_printf(out, "Code 0x%04x, version %u, from %s to %s.", m->code, m->version, m->from,
                   m->to));
    if (m->doc[0] != '\0')
        TRY(buf_printf(out, " %c%s.",
                       (m->doc[0] >= 'a' && m->doc[0] <= 'z') ? m->doc[0] - 32 : m->doc[0],
                       m->doc + 1));
    TRY(buf_printf(out, "\n\n"));
    TRY(put_fields(out, at));
    return put_example(out, m->code);
}

static err_t put_index(struct buf *out)
{
    TRY(buf_printf(
        out, "## All messages\n\n| code | message | from | to | |\n|---|---|---|---|---|\n"));
    for (size_t i = 0; i < N_LINES; i++)
        if (lines[i].what == LINE_MESSAGE)
            TRY(buf_printf(out, "| 0x%04x | [%s](#message-%s) | %s | %s | %s |\n",
                           lines[i].code, lines[i].name, lines[i].name, lines[i].from,
                           lines[i].to, lines[i].doc));
    return buf_printf(out, "\n");
}

static err_t put_section(struct buf *out, const struct section *s)
{
    TRY(buf_printf(out, "## %s\n\n%s\n\n", s->title, s->text));
    for (size_t i = 0; i < N_LINES; i++)
        if (lines[i].what == LINE_MESSAGE && lines[i].code >> 8 == s->high)
            TRY(put_message(out, i));
    return OK;
}

static err_t put_records(struct buf *out)
{
    TRY(buf_printf(out, "## Records\n\nParts of messages, never sent alone.\n\n"));
    for (size_t i = 0; i < N_LINES; i++) {
        if (lines[i].what != LINE_RECORD)
            continue;
        TRY(buf_printf(out, "### record %s\n\n%s.\n\n", lines[i].name, lines[i].doc));
        TRY(put_fields(out, i));
    }
    return OK;
}

err_t wire_document(struct buf *out)
{
    TRY(buf_add(out, intro, sizeof(intro) - 1));
    TRY(put_index(out));
    for (size_t i = 0; i < N_SECTIONS; i++)
        TRY(put_section(out, &sections[i]));
    return put_records(out);
}
