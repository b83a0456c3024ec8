#include "proxy/answer/answer.h"

#include <stdio.h>

#define TEXT_MAX 512

const char *delivered_name(enum delivered d)
{
    static const char *const names[] = {"no", "yes", "unknown"};

    return names[d];
}

bool delivered_parse(slice_t text, enum delivered *out)
{
    for (unsigned d = DELIVERED_NO; d <= DELIVERED_UNKNOWN; d++)
        if (slice_is_str(text, delivered_name((enum delivered)d))) {
            *out = (enum delivered)d;
            return true;
        }
    return false;
}

/* What may stand in a quoted string of a structured field (RFC 8941 3.3.3) and in a header:
 * printable ASCII, quotes replaced. Text from outside (a host, a route's name) cannot break
 * out. */
static void make_printable(char *text)
{
    for (char *p = text; *p != 0; p++)
        if (*p < 0x20 || *p > 0x7e || *p == '"' || *p == '\\')
            *p = '\'';
}

/* "W2001 CONNECT_REFUSED: details" or, without details, the code's own sentence. */
static void make_sentence(const struct code_info *info, slice_t details, char out[TEXT_MAX])
{
    if (details.n > 0)
        (void)snprintf(out, TEXT_MAX, "%s %s: %.*s", info->id, info->name,
                       details.n > 300 ? 300 : (int)details.n, (const char *)details.p);
    else
        (void)snprintf(out, TEXT_MAX, "%s %s: %s", info->id, info->name, info->what);
    make_printable(out);
}

static err_t add_text(struct head *h, struct arena *arena, slice_t name, const char *text)
{
    slice_t copy = arena_copy(arena, slice_str(text));

    if (copy.p == NULL)
        return ERR_OF(NOMEM);
    return head_add(h, arena, name, copy);
}

static err_t add_proxy_status(const struct answer *a, const struct code_info *info,
                              const char *sentence, struct arena *arena, struct head *out)
{
    char value[TEXT_MAX + 200], hop[80] = "";

    if (a->next_hop.n > 0) {
        (void)snprintf(hop, sizeof(hop), "%.*s", a->next_hop.n > 60 ? 60 : (int)a->next_hop.n,
                       (const char *)a->next_hop.p);
        make_printable(hop);
    }
    (void)snprintf(value, sizeof(value), "weft-%s; error=%s%s%s%s; details=\"%s\"",
                   direction_name(a->direction), info->proxy_status,
                   hop[0] != 0 ? "; next-hop=\"" : "", hop, hop[0] != 0 ? "\"" : "", sentence);
    return add_text(out, arena, SLICE_LIT("proxy-status"), value);
}

err_t answer_build(const struct answer *a, struct arena *arena, struct head *out)
{
    const struct code_info *info = code_info(a->code);
    char sentence[TEXT_MAX], number[12];

    make_sentence(info, a->details, sentence);
    head_init(out);
    out->version = HTTP_1_1;
    out->content_length = 0;
    out->is_keep_alive = !info->closes;
    out->status = a->status != 0 ? a->status : info->http != 0 ? info->http : 502;
    if (a->is_grpc) {
        out->status = 200;
        out->content_length = -1;
        TRY(head_add(out, arena, SLICE_LIT("content-type"), SLICE_LIT("application/grpc")));
        (void)snprintf(number, sizeof(number), "%u",
                       a->grpc_status != 0 ? a->grpc_status : info->grpc);
        TRY(add_text(out, arena, SLICE_LIT("grpc-status"), number));
        TRY(add_text(out, arena, SLICE_LIT("grpc-message"), sentence));
    }
    if (a->retry_after_s > 0) {
        (void)snprintf(number, sizeof(number), "%u", a->retry_after_s);
        TRY(add_text(out, arena, SLICE_LIT("retry-after"), number));
    }
    if (a->location.n > 0)
        TRY(head_add(out, arena, SLICE_LIT("location"), a->location));
    TRY(add_proxy_status(a, info, sentence, arena, out));
    TRY(add_text(out, arena, SLICE_LIT("l5d-proxy-error"), sentence));
    TRY(head_add(out, arena, SLICE_LIT("weft-code"), slice_str(info->id)));
    if (a->tells_delivered)
        TRY(head_add(out, arena, SLICE_LIT("weft-delivered"),
                     slice_str(delivered_name(a->delivered))));
    return OK;
}

size_t answer_grpc_trailers(enum code code, slice_t details, struct arena *arena,
                            struct field fields[2])
{
    const struct code_info *info = code_info(code);
    char sentence[TEXT_MAX], number[8];
    slice_t status, message;

    make_sentence(info, details, sentence);
    (void)snprintf(number, sizeof(number), "%u", info->grpc);
    status = arena_copy(arena, slice_str(number));
    message = arena_copy(arena, slice_str(sentence));
    if (status.p == NULL || message.p == NULL)
        return 0;
    fields[0] = (struct field){
        .name = SLICE_LIT("grpc-status"), .value = status, .token = FIELD_GRPC_STATUS};
    fields[1] = (struct field){
        .name = SLICE_LIT("grpc-message"), .value = message, .token = FIELD_GRPC_MESSAGE};
    return 2;
}
