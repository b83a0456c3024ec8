/* Socket addresses as text and back. */
#include "proxy/net/address.h"

#include <arpa/inet.h>
#include <stdio.h>

static const struct sockaddr_in *as_v4(const struct sockaddr_storage *a)
{
    return (const struct sockaddr_in *)(const void *)a;
}

static const struct sockaddr_in6 *as_v6(const struct sockaddr_storage *a)
{
    return (const struct sockaddr_in6 *)(const void *)a;
}

/* The four bytes of an IPv4 address, also of a v4-mapped one; NULL for real IPv6. */
static const uint8_t *v4_bytes(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET)
        return (const uint8_t *)&as_v4(a)->sin_addr;
    if (a->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&as_v6(a)->sin6_addr))
        return as_v6(a)->sin6_addr.s6_addr + 12;
    return NULL;
}

void address_print_ip(const struct sockaddr_storage *a, char out[ADDRESS_TEXT])
{
    const uint8_t *v4 = v4_bytes(a);
    const char *done = NULL;

    if (v4 != NULL)
        done = inet_ntop(AF_INET, v4, out, ADDRESS_TEXT);
    else if (a->ss_family == AF_INET6)
        done = inet_ntop(AF_INET6, &as_v6(a)->sin6_addr, out, ADDRESS_TEXT);
    if (done == NULL)
        out[0] = '\0';
}

void address_print(const struct sockaddr_storage *a, char out[ADDRESS_TEXT])
{
    char ip[ADDRESS_TEXT];
    bool bracket = a->ss_family == AF_INET6 && v4_bytes(a) == NULL;

    address_print_ip(a, ip);
    /* An address has at most 45 characters, so that brackets, colon and port always fit. */
    (void)snprintf(out, ADDRESS_TEXT, bracket ? "[%.45s]:%u" : "%.45s:%u", ip, address_port(a));
}

uint16_t address_port(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET)
        return ntohs(as_v4(a)->sin_port);
    if (a->ss_family == AF_INET6)
        return ntohs(as_v6(a)->sin6_port);
    return 0;
}

void address_set_port(struct sockaddr_storage *a, uint16_t port)
{
    if (a->ss_family == AF_INET)
        ((struct sockaddr_in *)(void *)a)->sin_port = htons(port);
    else if (a->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)a)->sin6_port = htons(port);
}

socklen_t address_len(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

bool address_is_loopback(const struct sockaddr_storage *a)
{
    const uint8_t *v4 = v4_bytes(a);

    if (v4 != NULL)
        return v4[0] == 127;
    return a->ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&as_v6(a)->sin6_addr);
}

bool address_same_ip(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const uint8_t *x = v4_bytes(a), *y = v4_bytes(b);

    if (x != NULL || y != NULL)
        return x != NULL && y != NULL && memcmp(x, y, 4) == 0;
    return a->ss_family == AF_INET6 && b->ss_family == AF_INET6 &&
           IN6_ARE_ADDR_EQUAL(&as_v6(a)->sin6_addr, &as_v6(b)->sin6_addr);
}

bool address_parse(slice_t ip, uint16_t port, struct sockaddr_storage *out)
{
    char text[ADDRESS_TEXT];
    struct sockaddr_storage a;

    if (!slice_to_cstr(ip, text, sizeof(text)))
        return false;
    memset(&a, 0, sizeof(a));
    if (inet_pton(AF_INET, text, &((struct sockaddr_in *)(void *)&a)->sin_addr) == 1)
        a.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)(void *)&a)->sin6_addr) == 1)
        a.ss_family = AF_INET6;
    else
        return false;
    address_set_port(&a, port);
    *out = a;
    return true;
}

bool address_parse_pair(slice_t text, struct sockaddr_storage *out)
{
    size_t colon = text.n;
    uint64_t port;
    slice_t ip;

    while (colon > 0 && text.p[colon - 1] != ':')
        colon--;
    if (colon < 2 || !slice_to_u64(slice_skip(text, colon), &port) || port > 65535)
        return false;
    ip = slice(text.p, colon - 1);
    if (ip.p[0] == '[') {
        if (ip.n < 3 || ip.p[ip.n - 1] != ']')
            return false;
        ip = slice(ip.p + 1, ip.n - 2);
    } else if (memchr(ip.p, ':', ip.n) != NULL) {
        return false; /* IPv6 without brackets is ambiguous */
    }
    return address_parse(ip, (uint16_t)port, out);
}
