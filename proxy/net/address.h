/* Socket addresses as text and back. */
#ifndef PROXY_NET_ADDRESS_H
#define PROXY_NET_ADDRESS_H

#include "kit/slice.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define ADDRESS_TEXT 56 /* "[ipv6]:65535" with NUL */

/* "10.0.0.1:80", "[::1]:80"; v4-mapped IPv6 as IPv4. */
void address_print(const struct sockaddr_storage *a, char out[ADDRESS_TEXT]);
/* Without the port. */
void address_print_ip(const struct sockaddr_storage *a, char out[ADDRESS_TEXT]);
uint16_t address_port(const struct sockaddr_storage *a);
void address_set_port(struct sockaddr_storage *a, uint16_t port);
socklen_t address_len(const struct sockaddr_storage *a);
bool address_is_loopback(const struct sockaddr_storage *a);
bool address_same_ip(const struct sockaddr_storage *a, const struct sockaddr_storage *b);
/* An IP literal (no names) and a port. */
bool address_parse(slice_t ip, uint16_t port, struct sockaddr_storage *out);
/* "IP:PORT" or "[IPv6]:PORT". */
bool address_parse_pair(slice_t text, struct sockaddr_storage *out);

#endif
