/* Codes and texts of refusals, the head of an answer to one; reason phrases. */
#include "proxy/http/refusal.h"

#include "kit/err.h"

#include <stdio.h>

static const struct {
    enum code code;
    const char *text;
} refusals[REFUSALS] = {
    [REFUSED_NOTHING] = {CODE_NONE, ""},
#define REFUSAL(fault, code, text) [REFUSED_##fault] = {CODE_##code, text},
#include "proxy/http/tbl/refusals.h"
#undef REFUSAL
};

const struct code_info *refusal_code(enum refusal r, bool is_answer)
{
    enum code code;

    BUG_ON((unsigned)r >= REFUSALS);
    code = refusals[r].code;
    if (is_answer && (code == CODE_HEAD_TOO_BIG || code == CODE_URI_TOO_LONG))
        code = CODE_RESPONSE_HEAD_BIG;
    else if (is_answer && code != CODE_MEMORY)
        code = CODE_BAD_RESPONSE;
    return code_info(code);
}

const char *refusal_text(enum refusal r)
{
    BUG_ON((unsigned)r >= REFUSALS);
    return refusals[r].text;
}

#define FIELD_SHOWN_MAX 64 /* bytes of a field's name that an answer repeats */

const char *refusal_text_for(enum refusal r, slice_t field, struct arena *a)
{
    char text[200];
    slice_t copy;

    if (field.n > FIELD_SHOWN_MAX)
        field.n = FIELD_SHOWN_MAX;
    if (!http_is_token(field))
        return refusal_text(r);
    (void)snprintf(text, sizeof(text), "%s: %.*s", refusal_text(r), SLICE_FMT(field));
    copy = arena_copy(a, slice_str(text));
    return copy.p != NULL ? (const char *)copy.p : refusal_text(r);
}

err_t refusal_fill(enum refusal r, struct arena *a, struct head *h)
{
    return refusal_fill_for(r, slice(NULL, 0), a, h);
}

err_t refusal_fill_for(enum refusal r, slice_t field, struct arena *a, struct head *h)
{
    const struct code_info *info = refusal_code(r, false);
    char text[256], status[384];
    slice_t sentence, value;

    (void)snprintf(text, sizeof(text), "%s %s: %s", info->id, info->name,
                   refusal_text_for(r, field, a));
    (void)snprintf(status, sizeof(status), "weft; error=%s; details=\"%s\"", info->proxy_status,
                   text);
    sentence = arena_copy(a, slice_str(text));
    value = arena_copy(a, slice_str(status));
    if (sentence.p == NULL || value.p == NULL)
        return ERR_OF(NOMEM);
    h->status = info->http;
    h->content_length = 0;
    TRY(head_add(h, a, SLICE_LIT("proxy-status"), value));
    TRY(head_add(h, a, SLICE_LIT("weft-code"), slice_str(info->id)));
    return head_add(h, a, SLICE_LIT("l5d-proxy-error"), sentence);
}

err_t refusal_make_grpc(enum refusal r, slice_t field, struct arena *a, struct head *h)
{
    const struct code_info *info = refusal_code(r, false);
    char text[256], number[8];
    slice_t status, message;

    (void)snprintf(number, sizeof(number), "%u", info->grpc);
    (void)snprintf(text, sizeof(text), "%s %s: %s", info->id, info->name,
                   refusal_text_for(r, field, a));
    status = arena_copy(a, slice_str(number));
    message = arena_copy(a, slice_str(text));
    if (status.p == NULL || message.p == NULL)
        return ERR_OF(NOMEM);
    h->status = 200;
    h->content_length = -1;
    TRY(head_add(h, a, SLICE_LIT("content-type"), SLICE_LIT("application/grpc")));
    TRY(head_add(h, a, SLICE_LIT("grpc-status"), status));
    return head_add(h, a, SLICE_LIT("grpc-message"), message);
}

slice_t http_reason(uint16_t status)
{
    static const struct {
        uint16_t status;
        slice_t text;
    } reasons[] = {
#define REASON(number, words) {number, {(const uint8_t *)(words), sizeof(words) - 1}},
#include "proxy/http/tbl/reasons.h"
#undef REASON
    };

    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return SLICE_LIT("");
}
