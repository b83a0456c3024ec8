/* Reads subject alternative names. OpenSSL has parsed them; their content is still what a
 * stranger wrote. */
#include "tls/identity.h"

#include "tls/tls_err.h"

#include "kit/slice.h"
#include "model/name.h"

#include <openssl/x509v3.h>
#include <string.h>

static bool uri_is_sane(slice_t s)
{
    if (!slice_starts(s, SLICE_LIT("spiffe://")) || s.n == strlen("spiffe://"))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= 0x20 || s.p[i] >= 0x7f || s.p[i] == '*')
            return false;
    }
    return true;
}

static bool take_name(const GENERAL_NAME *name, char out[IDENTITY_MAX + 1])
{
    int type;
    const ASN1_STRING *text = GENERAL_NAME_get0_value(name, &type);
    slice_t s;

    if (type != GEN_DNS && type != GEN_URI)
        return false;
    s = slice(ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
    if (s.n == 0 || s.n > IDENTITY_MAX || memchr(s.p, 0, s.n) != NULL)
        return false;
    if (type == GEN_DNS ? !name_is_host(s) : !uri_is_sane(s))
        return false;
    return slice_to_cstr(s, out, IDENTITY_MAX + 1);
}

err_t identity_of(X509 *cert, char out[IDENTITY_MAX + 1])
{
    int critical;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);
    bool ok = names != NULL && sk_GENERAL_NAME_num(names) == 1 &&
              take_name(sk_GENERAL_NAME_value(names, 0), out);

    GENERAL_NAMES_free(names);
    if (!ok)
        out[0] = '\0';
    return ok ? OK : ERR_OF(OTHER_IDENTITY);
}
